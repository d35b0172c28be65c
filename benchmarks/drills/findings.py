"""Findings that several drills have in common, as rows of a report."""

from collections.abc import Mapping

from ..results import Row, Target
from .influxd import Uses
from .neighbours import KINDS, Seen

SLOWER = Target("≤", 3)
"""So many times as long as when all is quiet neighbours may wait."""
NONE = Target("≤", 0)
MEGABYTES = Target("≤", 1000)
FILLED = 0.9
"""Of the files that influxd may open, so much may be open."""


def compared(drill: str, quiet: Seen, attacked: Seen) -> list[Row]:
    """How neighbours fared, by kind of request."""
    rows = []
    for kind in KINDS:
        before, then = quiet.figures(kind), attacked.figures(kind)
        details = {f"{name} quiet": before[name] for name in before} | {f"{name} attacked": then[name] for name in then}
        rows.append(
            Row(
                benchmark=drill, what=f"neighbours' {kind}, p95 against quiet", unit="×",
                value=then["p95"] / before["p95"] if before["p95"] else None, target=SLOWER,
                details={name: round(value, 1) for name, value in details.items()}, note="milliseconds",
            )
        )  # fmt: skip
    failed = "; ".join(f"{count} × {what}" for what, count in attacked.failures.most_common(5))
    total = sum(attacked.failures.values())
    return [
        *rows,
        Row(benchmark=drill, what="neighbours' failed requests", unit="", value=total, target=NONE, note=failed),
    ]


def files(drill: str, uses: Uses) -> Row:
    at = {moment: use.files for moment, use in uses.at.items()}
    return Row(
        benchmark=drill, what="influxd's open files, most", unit="", value=uses.most.files,
        target=Target("≤", FILLED * uses.most_files), details={**at, "may open": uses.most_files},
    )  # fmt: skip


def memory(drill: str, uses: Uses) -> Row:
    at = {moment: use.megabytes for moment, use in uses.at.items()}
    return Row(
        benchmark=drill, what="influxd's memory, most", unit="MB", value=uses.most.megabytes, target=MEGABYTES,
        details={**at},
    )  # fmt: skip


def lost(drill: str, missing: int, acknowledged: int) -> Row:
    return Row(
        benchmark=drill, what="acknowledged points that are missing", unit="", value=missing, target=NONE,
        details={"acknowledged": acknowledged},
    )  # fmt: skip


def answers(drill: str, found: Mapping[str, int]) -> Row:
    """What the attacker was told, by status."""
    total = sum(count for name, count in found.items() if name[-3:].isdecimal())
    return Row(
        benchmark=drill, what="the attacker's requests", unit="", value=total, details=dict(sorted(found.items()))
    )
