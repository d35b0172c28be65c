"""The contract's queries in Flux.

The text of a query is one of a few constants. What a client sent goes beside it, as ``extern``: a
file of Flux in the form of its syntax tree, in JSON. So there is nothing to escape, and nothing
that a string could become but a string. The conditions are a function of literals, which InfluxDB
hands down to its storage engine; names that are only looked up in a record it would not.
"""

from collections.abc import Sequence
from typing import Any

from .store import Selection
from .times import format_time

Node = dict[str, Any]

TO_FLOAT = " |> toFloat()"

_CHOSEN = "from(bucket: bucket) |> range(start: start, stop: stop) |> filter(fn: chosen)"
_FEWER = '|> drop(columns: ["_start", "_stop", "_measurement"])'

RAW = f"{_CHOSEN} |> limit(n: most) {_FEWER}"
FIRST = f"{_CHOSEN} |> first() {_FEWER}"
"""The first point of each series."""
TYPES = f'{_CHOSEN} |> group(columns: ["_field"]) |> first() |> keep(columns: ["_field", "_value"])'
"""One value of every field."""
TYPES_OF_EACH = FIRST
"""The same where a field's types differ, and so cannot come in one table."""

MEASUREMENTS = (
    "from(bucket: bucket) |> range(start: start, stop: stop)"
    ' |> keep(columns: ["_measurement"]) |> group() |> distinct(column: "_measurement")'
)
"""The names of all measurements of a bucket: these very steps InfluxDB answers from its index, without the points."""

EXACT_MEDIAN = '(column="_value", tables=<-) => tables |> median(column: column, method: "exact_mean")'
FUNCTIONS = {
    "mean": "mean", "median": EXACT_MEDIAN, "max": "max", "min": "min", "count": "count", "sum": "sum",
    "first": "first", "last": "last", "stddev": "stddev",
}  # fmt: skip
WHOLE = {"median": 'median(method: "exact_mean")', "stddev": "stddev()", "count": "count()"}
"""Of a whole range. Of the functions that the storage engine computes itself there is only one, and it is not asked as
they are: over times before 1970 InfluxDB 2.9 never ends."""


def windows(*functions: str, convert: str = "", limited: bool = True) -> str:
    """A query for these functions over windows; each one's results go by its name."""
    limit = " |> limit(n: most)" if limited else ""
    steps = {
        name: f"aggregateWindow(every: every, fn: {FUNCTIONS[name]}, createEmpty: false){limit}" for name in functions
    }
    return _yielding(steps, convert)


def whole(function: str, convert: str = "") -> str:
    """A query for one of :data:`WHOLE` over the whole range at once: one row a series."""
    return _yielding({function: WHOLE[function]}, convert)


def _yielding(steps: dict[str, str], convert: str) -> str:
    results = [f'points |> {step} {_FEWER} |> yield(name: "{name}")' for name, step in steps.items()]
    return "\n".join([f"points = {_CHOSEN}{convert}", *results])


def extern(bucket: str, selection: Selection) -> Node:
    """What the query means by ``bucket``, ``start``, ``stop``, ``chosen``, ``every`` and ``most``."""
    values = {
        "bucket": _string(bucket),
        "start": _time(selection.start),
        "stop": _time(selection.stop),
        "chosen": _condition(selection),
        "every": {"type": "DurationLiteral", "values": [{"magnitude": selection.window, "unit": "ns"}]},
        "most": {"type": "IntegerLiteral", "value": str(selection.limit)},
    }
    return {
        "type": "File",
        "package": None,
        "imports": [],
        "body": [_option(name, value) for name, value in values.items()],
    }


def _option(name: str, value: Node) -> Node:
    assignment = {"type": "VariableAssignment", "id": _identifier(name), "init": value}
    return {"type": "OptionStatement", "assignment": assignment}


def _identifier(name: str) -> Node:
    return {"type": "Identifier", "name": name}


def _string(value: str) -> Node:
    return {"type": "StringLiteral", "value": value}


def _time(nanoseconds: int) -> Node:
    return {"type": "DateTimeLiteral", "value": format_time(nanoseconds)}


def _condition(selection: Selection) -> Node:
    """``(r) => …``: of the measurement, of one of the fields, with all of the tags."""
    conditions = [_equal("_measurement", selection.measurement)]
    if selection.fields is not None:
        conditions.append(_joined("or", [_equal("_field", field) for field in selection.fields]))
    conditions += [_equal(key, value) for key, value in selection.tags.items()]
    parameter = {"type": "Property", "key": _identifier("r"), "value": None}
    return {"type": "FunctionExpression", "params": [parameter], "body": _joined("and", conditions)}


def _equal(column: str, value: str) -> Node:
    member = {"type": "MemberExpression", "object": _identifier("r"), "property": _string(column)}
    return {"type": "BinaryExpression", "operator": "==", "left": member, "right": _string(value)}


def _joined(operator: str, conditions: Sequence[Node]) -> Node:
    """All conditions in a tree that is as flat as can be: parsers have a limit of depth."""
    if len(conditions) == 1:
        return conditions[0]
    half = len(conditions) // 2
    left, right = _joined(operator, conditions[:half]), _joined(operator, conditions[half:])
    return {"type": "LogicalExpression", "operator": operator, "left": left, "right": right}
