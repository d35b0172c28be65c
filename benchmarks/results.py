"""What a benchmark finds: rows, each with a target where the project has set one."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

Verdict = Literal["met", "missed", "absent", ""]
"""``absent`` is what could not be measured; nothing is what has no target."""
BUSY = 0.25
"""Load average per core from which on others take part in what the clock shows."""


class Target(msgspec.Struct, frozen=True):
    """What a number should be at least (``≥``) or at most (``≤``)."""

    sense: Literal["≥", "≤"]
    bound: float

    def met(self, number: float) -> bool:
        return number >= self.bound if self.sense == "≥" else number <= self.bound


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measured thing. Without a ``value`` it could not be measured, and ``note`` says why.

    ``ratio`` is ours divided by this one's. Where it is not ``ours`` the target is the ratio's, else the value's.
    """

    benchmark: str
    what: str
    unit: str
    value: float | None
    ours: bool = True
    ratio: float | None = None
    target: Target | None = None
    details: dict[str, float] = {}
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.value is None:
            return "absent"
        if self.target is None:
            return ""
        judged = self.value if self.ratio is None else self.ratio
        return "met" if self.target.met(judged) else "missed"

    @property
    def aim(self) -> str:
        """The target in words."""
        if self.target is None:
            return ""
        unit = self.unit if self.ours else "×"
        return f"{self.target.sense} {number(self.target.bound)} {unit}"


def absent(benchmark: str, what: str, unit: str, why: str, target: Target | None = None) -> Row:
    """The row of something that could not be measured."""
    return Row(benchmark=benchmark, what=what, unit=unit, value=None, ours=False, target=target, note=why)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``load`` is the machine's load average (1 minute) before and after it."""

    version: str
    begun: str
    quick: bool
    machine: dict[str, str]
    load: tuple[float, float]
    rows: Sequence[Row]

    @property
    def disturbed(self) -> bool:
        """Whether the machine was busy with something else when the run began."""
        return self.load[0] > BUSY * int(self.machine["cores"])

    @property
    def complete(self) -> bool:
        """Whether every benchmark has measured something."""
        measured = {row.benchmark for row in self.rows if row.value is not None}
        return measured == {row.benchmark for row in self.rows}

    def to_json(self) -> str:
        found: dict[str, Any] = msgspec.to_builtins(self)
        for shown, row in zip(found["rows"], self.rows, strict=True):
            shown["verdict"] = row.verdict
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def number(value: float) -> str:
    """Three figures that count, and thousands kept apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
