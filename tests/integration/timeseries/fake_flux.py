"""A small Flux: it reads and evaluates what the time-series service asks InfluxDB, and a little more.

Syntax trees have the form that InfluxDB's own parser gives them in JSON. What it does not know is an error, as there;
which error, and which columns in which order, is what a real InfluxDB 2.9 answered.
"""

import calendar
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Node = dict[str, Any]
INT = 2**63
SECOND = 10**9
UNITS = {
    "ns": 1, "us": 10**3, "ms": 10**6, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND,
    "w": 7 * 86_400 * SECOND,
}  # fmt: skip


class FluxError(Exception):
    """The query is wrong, or cannot be evaluated."""

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


# Reading.

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<instant>\d{4}-\d\d-\d\dT[\d:.]+Z)|(?P<duration>-?(?:\d+(?:ns|us|ms|[smhdw]))+)'
    r"|(?P<number>-?\d+)|(?P<name>\w+)|(?P<sign>\|>|=>|<-|==|[()\[\],:=.])|(?P<end>\Z))",
    re.DOTALL,
)
_NAMES = {"": "EOF", ")": "RPAREN", "]": "RBRACK", ":": "COLON", "=>": "ARROW"}


class _Parser:
    """Nodes of calls and names have their places, as InfluxDB's messages do."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = self._end = 0
        self._next()

    def statements(self) -> Iterator[Node]:
        while self._kind != "end":
            found = self._expression()
            if found["type"] == "Identifier" and self._token == "=":
                self._take("=")
                found = {"type": "VariableAssignment", "id": found, "init": self._expression()}
            yield found

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._position)
        if match is None or match.lastgroup is None:
            raise FluxError(f"compilation failed: error {self._place(self._position)}: invalid statement")
        self._kind, self._token = match.lastgroup, match[match.lastgroup]
        self._begin, self._end, self._position = match.start(match.lastgroup), self._position, match.end()

    def _take(self, *expected: str) -> str:
        token = self._token
        if expected and token not in expected:
            wanted = _NAMES.get(expected[-1], expected[-1])
            raise FluxError(
                f"compilation failed: error {self._place(0)}: expected {wanted}, got {_NAMES.get(token, token)}"
            )
        self._next()
        return token

    def _place(self, begin: int) -> str:
        """From there to the end of what was taken, as ``@line:column-line:column``."""
        lines = [(self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at)) for at in (begin, self._end)]
        return "@" + "-".join(f"{line}:{column}" for line, column in lines)

    def _expression(self) -> Node:
        found = self._logical("or", "and")
        while self._token == "|>":
            self._take()
            found = {"type": "PipeExpression", "argument": found, "call": self._operand()}
        return found

    def _logical(self, *operators: str) -> Node:
        found = self._logical(*operators[1:]) if operators else self._comparison()
        while operators and self._token == operators[0]:
            self._take()
            right = self._logical(*operators[1:])
            found = {"type": "LogicalExpression", "operator": operators[0], "left": found, "right": right}
        return found

    def _comparison(self) -> Node:
        found = self._operand()
        if self._token == "==":
            self._take()
            found = {"type": "BinaryExpression", "operator": "==", "left": found, "right": self._operand()}
        return found

    def _operand(self) -> Node:
        begin = self._begin
        found = self._primary()
        while self._token in (".", "(") and self._kind == "sign" and found["type"] != "FunctionExpression":
            if self._take() == ".":
                found = {"type": "MemberExpression", "object": found, "property": {"value": self._take()}}
            else:
                properties = self._properties(")")
                found = {"type": "CallExpression", "callee": found, "arguments": [{"properties": properties}]}
                found["place"] = self._place(begin)
        return found

    def _properties(self, end: str) -> list[Node]:
        found = []
        while self._token != end:
            key = {"name": self._take()}
            self._take(":")
            found.append({"key": key, "value": self._expression()})
            if self._token != ",":
                break
            self._take()
        self._take(end)
        return found

    def _primary(self) -> Node:
        kind, token, begin = self._kind, self._token, self._begin
        self._take()
        if token == "[":
            elements = []
            while self._token != "]":
                elements.append(self._expression())
                if self._token == ",":
                    self._take()
            self._take("]")
            return {"type": "ArrayExpression", "elements": elements}
        if token == "(":
            return self._function()
        if kind == "string":
            return {"type": "StringLiteral", "value": re.sub(r"\\(.)", r"\1", token[1:-1])}
        if kind == "number":
            return {"type": "IntegerLiteral", "value": token}
        if kind == "instant":
            return {"type": "DateTimeLiteral", "value": token}
        if kind == "duration":
            parts = re.findall(r"(\d+)([a-z]+)", token)
            sign = -1 if token.startswith("-") else 1
            return {
                "type": "DurationLiteral",
                "values": [{"magnitude": sign * int(n), "unit": unit} for n, unit in parts],
            }
        if kind == "name":
            return {"type": "Identifier", "name": token, "place": self._place(begin)}
        raise FluxError(f"compilation failed: error {self._place(0)}: invalid expression {token}")

    def _function(self) -> Node:
        """After its opening parenthesis."""
        parameters = []
        while self._token != ")":
            key, value = {"name": self._take()}, None
            if self._token == "=":
                self._take()
                value = {"type": "PipeLiteral"} if self._token == "<-" else self._primary()
                if value["type"] == "PipeLiteral":
                    self._take()
            parameters.append({"key": key, "value": value})
            if self._token == ",":
                self._take()
        self._take(")")
        self._take("=>")
        return {"type": "FunctionExpression", "params": parameters, "body": self._expression()}


# Tables.


@dataclass(frozen=True)
class Table:
    """Rows with the same ``group`` key. ``kind`` is the type of their ``_value``, as InfluxDB's CSV names it."""

    group: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    kind: str


Chosen = Callable[[Mapping[str, Any]], bool]
Storage = Callable[[int, int, Chosen], Iterator[tuple[Mapping[str, Any], str, Sequence[tuple[int, Any]]]]]
"""Gives key, type and points of each field of each series in a range, in their order; also of fields that one lacks."""


@dataclass(frozen=True)
class Stored:
    """Points that are still in the storage engine, which computes some functions by itself."""

    storage: Storage
    start: int = -INT
    stop: int = INT
    chosen: Chosen = lambda _: True

    def tables(self) -> list[Table]:
        times = {"_start": self.start, "_stop": self.stop}
        return [
            Table(
                {**times, **key},
                ["_start", "_stop", "_time", "_value", *sorted(key)],
                [{**times, **key, "_time": at, "_value": value} for at, value in points],
                kind,
            )
            for key, kind, points in self.storage(self.start, self.stop, self.chosen)
            if points
        ]

    def kinds(self) -> list[str]:
        """Of the fields that are chosen, in each series that is: also where it has none of that field."""
        return [kind for _, kind, _ in self.storage(self.start, self.stop, self.chosen)]


Tables = list[Table]
KINDS = {float: "double", int: "long", bool: "boolean", str: "string"}
COLUMN_KINDS = {"double": "float", "long": "int", "boolean": "bool", "string": "string"}


def _wrapped(total: Any) -> Any:
    """Sums of integers have 64 bits."""
    return (total + INT) % (2 * INT) - INT if isinstance(total, int) else total


def _added(values: Iterable[Any]) -> Any:
    total: Any = None
    for value in values:
        total = value if total is None else _wrapped(total + value)
    return total


def _deviation(values: Sequence[float]) -> float:
    """By Welford's method."""
    mean = squares = 0.0
    for count, value in enumerate(values, 1):
        delta = value - mean
        mean += delta / count
        squares += delta * (value - mean)
    return math.sqrt(squares / (len(values) - 1)) if len(values) > 1 and squares >= 0 else math.nan


def _median(values: Sequence[float]) -> float:
    found = sorted(values)
    middle = len(found) // 2
    return found[middle] if len(found) % 2 else found[middle - 1] * 0.5 + found[middle] * 0.5


AGGREGATES: Mapping[str, Callable[[list[Any]], Any]] = {
    "count": len,
    "sum": _added,
    "mean": lambda values: float(_added(values)) / len(values),
    "median": _median,
    "stddev": _deviation,
    "spread": lambda values: max(values) - min(values),
}
SELECTORS: Mapping[str, Callable[[list[Any]], int]] = {
    "first": lambda values: 0,
    "last": lambda values: len(values) - 1,
    "min": lambda values: values.index(min(values)),
    "max": lambda values: values.index(max(values)),
}
BY_STORAGE = {"count", "sum", "mean", *SELECTORS}
NUMBERS_ONLY = {"median", "stddev", "spread", "sum", "mean", "min", "max"}


def _check(name: str, kinds: Iterable[str], place: str, *, stored: bool, exact: bool = False) -> None:
    """Raises what InfluxDB answers where a function is not for values of a type; an exact median is for floats only."""
    for kind in kinds:
        if name not in NUMBERS_ONLY or kind == "double" or (kind == "long" and not exact):
            continue
        if stored and name in SELECTORS:
            raise FluxError(f"panic: unsupported for aggregate {name}: *reads.{kind}MultiShardArrayCursor", 500)
        if stored:
            raise FluxError(f"unsupported input type for {name} aggregate: {kind}")
        problem = "unsupported aggregate column type"
        if name in SELECTORS:
            problem = f"invalid use of function: *universe.{name.capitalize()}Selector has no implementation for type"
        raise FluxError(f"runtime error {place}: {problem} {COLUMN_KINDS[kind]}")


def _applied(name: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row that a function makes of some, or takes from them."""
    values = [row["_value"] for row in rows]
    return rows[SELECTORS[name](values)] if name in SELECTORS else {**rows[0], "_value": AGGREGATES[name](values)}


def _kind(name: str, table: Table) -> str:
    return table.kind if name in (*SELECTORS, "sum", "spread") else "long" if name == "count" else "double"


def _only(mapping: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key in columns}


def _regrouped(tables: Tables, kept: Callable[[str], bool], grouped: Callable[[str], bool]) -> Tables:
    """The same rows by other columns, of which some are left out."""
    found: dict[tuple[Any, ...], Table] = {}
    for table in tables:
        group = {key: value for key, value in table.group.items() if grouped(key)}
        columns = [column for column in table.columns if kept(column)]
        before = found.get(tuple(group.items()), Table(group, columns, [], table.kind))
        if before.kind != table.kind and "_value" in columns:
            raise FluxError("schema collision: cannot group tables of several types together")
        rows = [*before.rows, *(_only(row, columns) for row in table.rows)]
        found[tuple(group.items())] = replace(before, rows=rows, columns=[*dict.fromkeys([*before.columns, *columns])])
    return _by_key(found.values())


def _by_key(tables: Iterable[Table]) -> Tables:
    return sorted(tables, key=lambda table: [str(value) for value in table.group.values()])


# Evaluating.


@dataclass(frozen=True)
class _Function:
    node: Node


class _Duration(int):
    """Nanoseconds."""


class Evaluation:
    """One query: ``results`` are its tables by the names they were given."""

    def __init__(self, query: str, extern: Sequence[Node], storage: Callable[[str], Storage], now: int) -> None:
        self._storage = storage
        self._now = now
        self._scope: dict[str, Any] = {"true": True, "false": False}
        self.results: dict[str, Tables] = {}
        statements = [*_Parser(query).statements()]
        for statement in [*(option["assignment"] for option in extern), *statements]:
            if statement["type"] == "VariableAssignment":
                name, value = statement["id"]["name"], self._value(statement["init"], self._scope)
                # What goes several ways from the storage engine is computed by none of it.
                is_shared = isinstance(value, Stored) and sum(_uses(one, name) for one in statements) > 2
                self._scope[name] = value.tables() if is_shared else value
            else:
                found = self._value(statement, self._scope)
                if not any(found is result for result in self.results.values()):
                    self.results["_result"] = _tables(found)

    def _value(self, node: Node, scope: Mapping[str, Any]) -> Any:  # noqa: C901  (one branch a kind of node)
        match node["type"]:
            case "StringLiteral":
                return node["value"]
            case "IntegerLiteral":
                return int(node["value"])
            case "DateTimeLiteral":
                return instant(node["value"])
            case "DurationLiteral":
                return _Duration(sum(part["magnitude"] * UNITS[part["unit"]] for part in node["values"]))
            case "Identifier":
                name = node["name"]
                if name not in scope and name not in {*AGGREGATES, *SELECTORS}:
                    raise FluxError(f"error {node.get('place', '')}: undefined identifier {name}")
                return scope.get(name, name)
            case "ArrayExpression":
                return [self._value(element, scope) for element in node["elements"]]
            case "FunctionExpression":
                return _Function(node)
            case "PipeExpression":
                return self._call(node["call"], scope, self._value(node["argument"], scope))
            case "CallExpression":
                return self._call(node, scope, None)
            case "MemberExpression":
                return self._value(node["object"], scope).get(node["property"]["value"])
            case "BinaryExpression":
                return self._value(node["left"], scope) == self._value(node["right"], scope)
            case "LogicalExpression":
                left = self._value(node["left"], scope)
                is_decided = left if node["operator"] == "or" else not left
                return left if is_decided else self._value(node["right"], scope)
        raise FluxError(f"{node['type']} is not known here")

    def _call(self, node: Node, scope: Mapping[str, Any], piped: Any) -> Any:
        name, place = node["callee"].get("name", ""), node.get("place", "")
        given = node["arguments"][0]["properties"] if node.get("arguments") else []
        arguments = {item["key"]["name"]: self._value(item["value"], scope) for item in given}
        try:
            if name in AGGREGATES or name in SELECTORS:
                return self._of_each(piped, name, place, **arguments)
            step: Callable[..., Any] | None = getattr(self, f"_do_{name}", None)
            if step is None:
                raise FluxError(f"error {node['callee'].get('place', '')}: undefined identifier {name}")
            if name in ("range", "filter", "aggregateWindow"):
                return step(piped, **arguments, **({"place": place} if name == "aggregateWindow" else {}))
            return step(_tables(piped) if piped is not None else None, **arguments)
        except TypeError as problem:
            raise FluxError(f"error {place}: {problem}") from None

    def _do_from(self, _: None, *, bucket: str) -> Stored:
        return Stored(self._storage(bucket))

    def _do_range(self, stored: Stored, *, start: int, stop: int | None = None) -> Stored:
        stop = _Duration(0) if stop is None else stop
        start, stop = (at + self._now if isinstance(at, _Duration) else at for at in (start, stop))
        if start >= stop:
            raise FluxError("error in building plan while starting program: cannot query an empty range")
        return replace(stored, start=start, stop=stop)

    def _do_filter(self, stored: Stored, *, fn: _Function) -> Stored:
        """All of a condition's columns are in the group key."""
        parameter, body, before = fn.node["params"][0]["key"]["name"], fn.node["body"], stored.chosen

        def chosen(key: Mapping[str, Any]) -> bool:
            return before(key) and bool(self._value(body, {**self._scope, parameter: key}))

        return replace(stored, chosen=chosen)

    def _of_each(self, piped: Any, name: str, place: str, *, column: str = "_value", method: str = "") -> Tables:
        """A function of all of a table's rows."""
        tables = _tables(piped)
        stored = isinstance(piped, Stored) and name in BY_STORAGE
        kinds = piped.kinds() if stored else [table.kind for table in tables]
        _check(name, kinds, f"{place}: {name}", stored=stored, exact=method == "exact_mean")
        found = []
        for table in tables:
            columns = [*table.columns]
            if name not in SELECTORS:
                kept = [column for column in columns if column != "_time"]
                columns = kept if stored else [*(key for key in kept if key in table.group), "_value"]
            found.append(replace(table, columns=columns, rows=[_applied(name, table.rows)], kind=_kind(name, table)))
        return found

    def _do_aggregateWindow(self, piped: Any, *, every: int, fn: Any, createEmpty: bool, place: str) -> Tables:  # noqa: N802, N803
        if createEmpty:
            raise FluxError("empty windows are not known here")
        name, place = (fn, f"{place}: aggregateWindow") if isinstance(fn, str) else _named(fn)
        tables, stored = _tables(piped), isinstance(piped, Stored) and name in BY_STORAGE and isinstance(fn, str)
        kinds = piped.kinds() if stored else [table.kind for table in tables]
        _check(name, kinds, place, stored=stored, exact=not isinstance(fn, str))
        found = []
        for table in tables:
            windows: dict[int, list[Mapping[str, Any]]] = {}
            for row in table.rows:
                windows.setdefault(row["_time"] // every, []).append(row)
            rows = []
            for number, inside in sorted(windows.items()):
                if not -INT <= number * every <= (number + 1) * every < INT:
                    raise FluxError("a window beyond 64 bits")
                stop = min((number + 1) * every, table.group["_stop"])
                rows.append({**_applied(name, inside), "_time": stop})
            columns = _window_columns(name, table, stored=stored)
            found.append(Table(table.group, columns, rows, _kind(name, table)))
        return found if name in BY_STORAGE else _by_key(found)

    def _do_limit(self, tables: Tables, *, n: int) -> Tables:
        return [replace(table, rows=table.rows[:n]) for table in tables]

    def _do_drop(self, tables: Tables, *, columns: list[str]) -> Tables:
        return _regrouped(tables, lambda key: key not in columns, lambda key: key not in columns)

    def _do_keep(self, tables: Tables, *, columns: list[str]) -> Tables:
        return _regrouped(tables, columns.__contains__, columns.__contains__)

    def _do_group(self, tables: Tables, *, columns: Sequence[str] = ()) -> Tables:
        found = _regrouped(tables, lambda _: True, columns.__contains__)
        return [replace(table, rows=sorted(table.rows, key=lambda row: row.get("_time", 0))) for table in found]

    def _do_distinct(self, tables: Tables, *, column: str) -> Tables:
        found = []
        for table in tables:
            values = dict.fromkeys(row[column] for row in table.rows)
            rows = [{**table.group, "_value": value} for value in values]
            found.append(Table(table.group, [*table.group, "_value"], rows, "string"))
        return found

    def _do_toFloat(self, tables: Tables) -> Tables:  # noqa: N802
        for table in tables:
            if table.kind == "string":
                text = table.rows[0]["_value"]
                raise FluxError(f'runtime error: cannot convert string "{text}" to Float due to invalid syntax')
        return [
            replace(table, rows=[{**row, "_value": float(row["_value"])} for row in table.rows], kind="double")
            for table in tables
        ]

    def _do_yield(self, tables: Tables, *, name: str) -> Tables:
        self.results[name] = tables
        return tables


def _uses(node: Any, name: str) -> int:
    """How often a name stands in a syntax tree."""
    if isinstance(node, dict):
        here = node.get("type") == "Identifier" and node["name"] == name
        return here + sum(_uses(one, name) for one in node.values())
    return sum(_uses(one, name) for one in node) if isinstance(node, list) else 0


def _tables(piped: Any) -> Tables:
    if isinstance(piped, Stored):
        return piped.tables()
    if not isinstance(piped, list):
        raise FluxError("expected a stream of tables")
    return piped


def _named(function: _Function) -> tuple[str, str]:
    """The one function that a function of a stream pipes it to, and where."""
    call = function.node["body"]["call"]
    return call["callee"]["name"], f"{call['place']}: {call['callee']['name']}"


def _window_columns(name: str, table: Table, *, stored: bool) -> Sequence[str]:
    keys = [key for key in table.columns if key in table.group]
    if stored or name in SELECTORS:
        return table.columns
    return ["_time", *keys, "_value"] if name in BY_STORAGE else [*keys, "_value", "_time"]


def instant(text: str) -> int:
    """Nanoseconds since the epoch."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * SECOND + int(fraction.ljust(9, "0"))
