"""A small Flux for tests: it reads and evaluates what the time-series service asks InfluxDB.

Syntax trees have the form that InfluxDB's own parser gives them in JSON, without locations. What
it does not know is an error, as there. It is held to the real parser, and its answers to InfluxDB 1.6.7.
"""

import calendar
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Node = dict[str, Any]
INT = 2**63


class FluxError(Exception):
    """The query is wrong, or cannot be evaluated."""


# Reading.

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>\d+)|(?P<name>\w+)|(?P<sign>\|>|=>|<-|[()\[\],:=.-]))', re.DOTALL
)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise FluxError(f"unexpected {text[position : position + 20]!r}")
        found.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = [*_tokens(text), ("end", "")]
        self._at = 0

    def statements(self) -> list[Node]:
        found = []
        while self._kind != "end":
            if self._kind == "name" and self._peek(1) == "=":
                name = self._take()
                self._take("=")
                found.append(_assignment(name, self._expression()))
            else:
                found.append({"type": "ExpressionStatement", "expression": self._expression()})
        return found

    @property
    def _kind(self) -> str:
        return self._tokens[self._at][0]

    def _peek(self, ahead: int = 0) -> str:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)][1]

    def _take(self, expected: str | None = None) -> str:
        text = self._peek()
        if expected is not None and text != expected:
            raise FluxError(f"expected {expected!r}, not {text!r}")
        self._at += 1
        return text

    def _expression(self) -> Node:
        found = self._called()
        while self._peek() == "|>":
            self._take()
            found = {"type": "PipeExpression", "argument": found, "call": self._called()}
        return found

    def _called(self) -> Node:
        found = self._primary()
        while self._peek() == "(" and found["type"] == "Identifier":
            arguments = self._arguments()
            call: Node = {"type": "CallExpression", "callee": found}
            if arguments:
                call["arguments"] = [{"type": "ObjectExpression", "properties": arguments}]
            found = call
        return found

    def _arguments(self) -> list[Node]:
        self._take("(")
        found = []
        while self._peek() != ")":
            key = _identifier(self._take())
            self._take(":")
            found.append({"type": "Property", "key": key, "value": self._expression()})
            if self._peek() == ",":
                self._take()
        self._take(")")
        return found

    def _primary(self) -> Node:
        kind = self._kind
        if self._peek() == "[":
            return self._array()
        if self._peek() == "(":
            return self._function()
        text = self._take()
        if kind == "string":
            return {"type": "StringLiteral", "value": re.sub(r"\\(.)", r"\1", text[1:-1])}
        if kind == "number":
            return {"type": "IntegerLiteral", "value": text}
        if kind == "name":
            return _identifier(text)
        raise FluxError(f"unexpected {text!r}")

    def _array(self) -> Node:
        self._take("[")
        elements = []
        while self._peek() != "]":
            elements.append(self._expression())
            if self._peek() == ",":
                self._take()
        self._take("]")
        return {"type": "ArrayExpression", "elements": elements}

    def _function(self) -> Node:
        self._take("(")
        parameters = []
        while self._peek() != ")":
            value = None
            key = _identifier(self._take())
            if self._peek() == "=":
                self._take()
                value = self._pipe() if self._peek() == "<-" else self._expression()
            parameters.append({"type": "Property", "key": key, "value": value})
            if self._peek() == ",":
                self._take()
        self._take(")")
        self._take("=>")
        return {"type": "FunctionExpression", "params": parameters, "body": self._expression()}

    def _pipe(self) -> Node:
        self._take("<-")
        return {"type": "PipeLiteral"}


def _identifier(name: str) -> Node:
    return {"type": "Identifier", "name": name}


def _assignment(name: str, value: Node) -> Node:
    return {"type": "VariableAssignment", "id": _identifier(name), "init": value}


def parse(text: str) -> list[Node]:
    """The statements of a query."""
    return _Parser(text).statements()


# Tables.


@dataclass(frozen=True)
class Table:
    """Rows with the same ``group`` key; ``kind`` is the type of their ``_value``, as InfluxDB's CSV names it."""

    group: dict[str, Any]
    rows: list[dict[str, Any]]
    kind: str


Tables = list[Table]
Storage = Callable[[str], Tables]
"""Gives all points of a bucket, by its name."""

KINDS = {float: "double", int: "long", bool: "boolean", str: "string"}


def _numbers(table: Table, name: str) -> list[Any]:
    if table.kind not in ("double", "long"):
        raise FluxError(f"unsupported input type for {name} aggregate: {table.kind}")
    return [row["_value"] for row in table.rows]


def _wrapped(total: Any) -> Any:
    """Sums of integers have 64 bits."""
    return (total + INT) % (2 * INT) - INT if isinstance(total, int) else total


def _added(values: Iterable[Any]) -> Any:
    total: Any = None
    for value in values:
        total = value if total is None else _wrapped(total + value)
    return total


def _deviation(values: Sequence[float]) -> float:
    """By Welford's method, as InfluxDB does."""
    mean = squares = 0.0
    for count, value in enumerate(values, 1):
        delta = value - mean
        mean += delta / count
        squares += delta * (value - mean)
    return math.sqrt(squares / (len(values) - 1)) if len(values) > 1 and squares >= 0 else math.nan


def _median(values: Sequence[float]) -> float:
    found = sorted(map(float, values))
    middle = len(found) // 2
    return found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2


def _extreme(table: Table, name: str, pick: Callable[[list[Any]], Any]) -> dict[str, Any]:
    values = _numbers(table, name)
    return table.rows[values.index(pick(values))]


AGGREGATES: dict[str, Callable[[Table], Any]] = {
    "count": lambda table: len(table.rows),
    "sum": lambda table: _added(_numbers(table, "sum")),
    "mean": lambda table: float(_added(_numbers(table, "mean"))) / len(table.rows),
    "median": lambda table: _median(_numbers(table, "median")),
    "stddev": lambda table: _deviation(_numbers(table, "stddev")),
}
SELECTORS: dict[str, Callable[[Table], dict[str, Any]]] = {
    "first": lambda table: table.rows[0],
    "last": lambda table: table.rows[-1],
    "min": lambda table: _extreme(table, "min", min),
    "max": lambda table: _extreme(table, "max", max),
}


def _aggregated(table: Table, name: str) -> Table:
    """The table made to one row."""
    if name in SELECTORS:
        return replace(table, rows=[SELECTORS[name](table)])
    value = AGGREGATES[name](table)
    return Table(table.group, [{**table.group, "_value": value}], KINDS[type(value)])


def _regrouped(tables: Tables, columns: Callable[[dict[str, Any]], dict[str, Any]]) -> Tables:
    """The same rows by other columns. Rows of several types cannot come together."""
    found: dict[tuple[Any, ...], Table] = {}
    for table in tables:
        group = columns(table.group)
        here = found.setdefault(tuple(group.items()), Table(group, [], table.kind))
        if here.kind != table.kind:
            raise FluxError(f"schema collision: cannot group {here.kind} and {table.kind} types together")
        here.rows.extend(table.rows)
    return list(found.values())


def _cut(table: Table, columns: Callable[[dict[str, Any]], dict[str, Any]]) -> Table:
    """The table with fewer columns. Without values its type matters no more."""
    rows = [columns(row) for row in table.rows]
    return Table(table.group, rows, table.kind if "_value" in rows[0] else "string") if rows else table


def _without(mapping: dict[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in columns}


def _only(mapping: dict[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key in columns}


# Evaluating.


@dataclass(frozen=True)
class _Function:
    node: Node


class Evaluation:
    """One query: ``results`` are its tables by the names they were given."""

    def __init__(self, statements: Sequence[Node], extern: Sequence[Node], storage: Storage) -> None:
        self._storage = storage
        self._scope: dict[str, Any] = {"true": True, "false": False}
        self.results: dict[str, Tables] = {}
        self.rows = 0
        """How many are gone through; without a filter the index is enough."""
        for statement in extern:
            self._assign(statement["assignment"], self._scope)
        for statement in statements:
            if statement["type"] == "VariableAssignment":
                self._assign(statement, self._scope)
                continue
            found = self._value(statement["expression"], self._scope)
            if not any(found is result for result in self.results.values()):
                self.results["_result"] = found

    def _assign(self, node: Node, scope: dict[str, Any]) -> None:
        scope[node["id"]["name"]] = self._value(node["init"], scope)

    def _value(self, node: Node, scope: dict[str, Any]) -> Any:  # noqa: C901  (one branch a kind of node)
        kind = node["type"]
        if kind == "StringLiteral":
            return node["value"]
        if kind == "IntegerLiteral":
            return int(node["value"])
        if kind == "DateTimeLiteral":
            return _instant(node["value"])
        if kind == "DurationLiteral":
            return sum(part["magnitude"] * {"ns": 1}[part["unit"]] for part in node["values"])
        if kind == "Identifier":
            if node["name"] not in scope and node["name"] not in {*AGGREGATES, *SELECTORS}:
                raise FluxError(f"undefined identifier {node['name']}")
            return scope.get(node["name"], node["name"])
        if kind == "ArrayExpression":
            return [self._value(element, scope) for element in node["elements"]]
        if kind == "FunctionExpression":
            return _Function(node)
        if kind == "PipeExpression":
            return self._call(node["call"], scope, self._value(node["argument"], scope))
        if kind == "CallExpression":
            return self._call(node, scope, None)
        if kind == "MemberExpression":
            return self._value(node["object"], scope).get(node["property"]["value"])
        if kind == "BinaryExpression" and node["operator"] == "==":
            return self._value(node["left"], scope) == self._value(node["right"], scope)
        if kind == "LogicalExpression":
            left = self._value(node["left"], scope)
            return (
                left and self._value(node["right"], scope)
                if node["operator"] == "and"
                else (left or self._value(node["right"], scope))
            )
        raise FluxError(f"{kind} is not known here")

    def _call(self, node: Node, scope: dict[str, Any], tables: Any) -> Any:
        name = node["callee"]["name"]
        given = node["arguments"][0]["properties"] if node.get("arguments") else []
        arguments = {item["key"]["name"]: self._value(item["value"], scope) for item in given}
        if name in AGGREGATES or name in SELECTORS:
            if name == "median" and arguments.get("method") != "exact_mean":
                raise FluxError("an estimate is not known here")
            return [_aggregated(table, name) for table in tables]
        step: Callable[..., Tables] | None = getattr(self, f"_do_{name}", None)
        if step is None:
            raise FluxError(f"undefined identifier {name}")
        return step(tables, **arguments)

    def _do_from(self, _: None, *, bucket: str) -> Tables:
        return self._storage(bucket)

    def _do_range(self, tables: Tables, *, start: int, stop: int) -> Tables:
        found = []
        for table in tables:
            group = {"_start": start, "_stop": stop, **table.group}
            rows = [{**group, **row} for row in table.rows if start <= row["_time"] < stop]
            if rows:
                found.append(Table(group, rows, table.kind))
        return found

    def _do_filter(self, tables: Tables, *, fn: _Function) -> Tables:
        """All of a condition's columns are in the group key."""
        parameter = fn.node["params"][0]["key"]["name"]
        body = fn.node["body"]
        found = [table for table in tables if self._value(body, {**self._scope, parameter: table.group})]
        self.rows += sum(len(table.rows) for table in found)
        return found

    def _do_limit(self, tables: Tables, *, n: int) -> Tables:
        return [replace(table, rows=table.rows[:n]) for table in tables]

    def _do_drop(self, tables: Tables, *, columns: list[str]) -> Tables:
        cut = [_cut(table, lambda row: _without(row, columns)) for table in tables]
        return _regrouped(cut, lambda group: _without(group, columns))

    def _do_keep(self, tables: Tables, *, columns: list[str]) -> Tables:
        cut = [_cut(table, lambda row: _only(row, columns)) for table in tables]
        return _regrouped(cut, lambda group: _only(group, columns))

    def _do_distinct(self, tables: Tables, *, column: str) -> Tables:
        return [
            Table(
                table.group,
                [{**table.group, "_value": value} for value in {row[column]: 1 for row in table.rows}],
                "string",
            )
            for table in tables
        ]

    def _do_group(self, tables: Tables, *, columns: Sequence[str] = ()) -> Tables:
        return _regrouped(tables, lambda group: _only(group, columns))

    def _do_toFloat(self, tables: Tables) -> Tables:  # noqa: N802
        return [
            replace(table, rows=[{**row, "_value": float(row["_value"])} for row in table.rows], kind="double")
            for table in tables
        ]

    def _do_yield(self, tables: Tables, *, name: str) -> Tables:
        self.results[name] = tables
        return tables

    def _do_aggregateWindow(  # noqa: N802
        self,
        tables: Tables,
        *,
        every: int,
        fn: Any,
        createEmpty: bool,  # noqa: N803
    ) -> Tables:
        if createEmpty:
            raise FluxError("empty windows are not known here")
        found = []
        for table in tables:
            windows: dict[int, list[dict[str, Any]]] = {}
            for row in table.rows:
                windows.setdefault(row["_time"] // every, []).append(row)
            rows = []
            kind = table.kind
            for number, inside in sorted(windows.items()):
                if not -INT <= number * every <= (number + 1) * every < INT:
                    raise FluxError("a window beyond 64 bits")
                stop = min((number + 1) * every, table.group["_stop"])
                (one,) = self._applied(fn, replace(table, rows=inside))
                kind = one.kind
                rows.append({**one.rows[0], "_time": stop})
            found.append(Table(table.group, rows, kind))
        return found

    def _applied(self, fn: Any, table: Table) -> Tables:
        if isinstance(fn, str):
            return [_aggregated(table, fn)]
        scope = dict(self._scope)
        for parameter in fn.node["params"]:
            value = parameter["value"]
            is_pipe = value is not None and value["type"] == "PipeLiteral"
            scope[parameter["key"]["name"]] = [table] if is_pipe else self._value(value, scope)
        result: Tables = self._value(fn.node["body"], scope)
        return result


def _instant(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))


def evaluate(query: str, extern: Node | None, storage: Storage) -> dict[str, Tables]:
    """The tables of a query by result."""
    return Evaluation(parse(query), (extern or {}).get("body", []), storage).results


__all__ = ["FluxError", "Table", "evaluate", "parse"]
