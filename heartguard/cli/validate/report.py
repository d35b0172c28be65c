"""What a run has found: a table for people, a file for programs."""

from datetime import datetime
from typing import Literal

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...services import SERVICES

Verdict = Literal["ok", "failed", "skipped"]
OK: Verdict = "ok"
FAILED: Verdict = "failed"
SKIPPED: Verdict = "skipped"
COLOURS = {"ok": "green", "failed": "red", "skipped": "yellow"}


class Row(msgspec.Struct, kw_only=True):
    """One operation in one format. ``milliseconds`` is from the request to the last byte of the answer."""

    operation: str
    service: str
    format: str
    status: int | None = None
    milliseconds: float | None = None
    verdict: Verdict = "skipped"
    problem: str = ""
    request_id: str = ""


class Report(msgspec.Struct, kw_only=True):
    """One run. ``left_behind`` is what could not be removed."""

    gateway: str
    started_at: datetime
    seconds: float = 0.0
    interrupted: bool = False
    operations: list[Row] = []
    left_behind: list[str] = []

    def count(self, verdict: Verdict) -> int:
        return sum(row.verdict == verdict for row in self.operations)

    @property
    def passed(self) -> bool:
        """Whether everything was tried and is well, and nothing is left behind."""
        return not self.interrupted and not self.left_behind and self.count(OK) == len(self.operations) > 0

    def to_json(self) -> bytes:
        found = msgspec.to_builtins(self)
        counts = {verdict: self.count(verdict) for verdict in (OK, FAILED, SKIPPED)}
        return msgspec.json.format(msgspec.json.encode({"passed": self.passed, **counts, **found})) + b"\n"


def show(report: Report, console: Console) -> None:
    """The table, what is wrong, the verdict."""
    console.print(_table(report))
    bad = [row for row in report.operations if row.verdict == FAILED]
    for row in bad:
        request = f" [dim](request {row.request_id})[/]" if row.request_id not in row.problem else ""
        console.print(f"[red]failed[/] {escape(row.operation)} in {row.format}: {escape(row.problem)}{request}")
    for name in report.left_behind:
        console.print(f"[yellow]left behind[/] {escape(name)}: perhaps; look, and remove it by hand")
    console.print(_verdict(report, sorted({row.service for row in bad})))


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("SERVICE", "OPERATION", "FORMAT", "STATUS", "MS", "VERDICT"):
        table.add_column(column, justify="right" if column in {"STATUS", "MS"} else "left", overflow="fold")
    for row in sorted(report.operations, key=lambda row: list(SERVICES).index(row.service)):
        took = "" if row.milliseconds is None else f"{row.milliseconds:.1f}"
        verdict = f"[{COLOURS[row.verdict]}]{row.verdict}[/]"
        table.add_row(row.service, escape(row.operation), row.format, str(row.status or ""), took, verdict)
    return table


def _verdict(report: Report, services: list[str]) -> str:
    counts = f"{report.count(OK)} ok, {report.count(FAILED)} failed, {report.count(SKIPPED)} not tried"
    found = f"{counts}; {report.seconds:.1f} s, {report.gateway}"
    if report.interrupted:
        return f"[yellow]Interrupted[/]: {found}"
    if report.passed:
        return f"[bold green]All is well[/]: {found}"
    blame = f" in {', '.join(services)}" if services else ""
    return f"[bold red]Not all is well{blame}[/]: {found}"
