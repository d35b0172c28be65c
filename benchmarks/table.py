"""The result as one table."""

from rich.markup import escape
from rich.table import Table

from .results import Report, Row, number

STYLES = {"met": "green", "missed": "red", "absent": "yellow", "": ""}


def table(report: Report) -> Table:
    shown = Table(title="HeartGuard, measured", title_justify="left", caption=caption(report), caption_justify="left")
    for heading in ("benchmark", "what"):
        shown.add_column(heading, no_wrap=heading == "benchmark")
    for heading in ("measured", "ours ÷ it", "target"):
        shown.add_column(heading, justify="right")
    shown.add_column("verdict")
    shown.add_column("more", overflow="fold")
    previous = ""
    for row in report.rows:
        if previous not in {"", row.benchmark}:
            shown.add_section()
        shown.add_row(*cells(row, new=row.benchmark != previous))
        previous = row.benchmark
    return shown


def cells(row: Row, *, new: bool) -> list[str]:
    measured = "–" if row.value is None else f"{number(row.value)} {row.unit}"
    ratio = "" if row.ratio is None else f"{number(row.ratio)} ×"
    style = STYLES[row.verdict]
    verdict = f"[{style}]{row.verdict}[/]" if style else ""
    return [row.benchmark if new else "", escape(row.what), measured, ratio, row.aim, verdict, more(row)]


def more(row: Row) -> str:
    """The details and the note in one line."""
    found = [f"{name} {number(value)}" for name, value in row.details.items()]
    return escape(" · ".join([*found, *([" ".join(row.note.split())] if row.note else [])]))


def caption(report: Report) -> str:
    machine = report.machine
    before, after = report.load
    return (
        f"{report.begun} · HeartGuard {report.version} · {machine['cores']} cores, {machine['cpu']} · Python"
        f" {machine['python']} · load average {before} before, {after} after"
        + (" · quick: small rounds, rough figures" if report.quick else "")
        + (
            "\nThe machine was busy with something else: what the clock shows is worse than it would be."
            if report.disturbed
            else ""
        )
    )
