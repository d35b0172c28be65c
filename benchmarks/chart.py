"""The result as a picture (SVG) for the documents: a bar for each thing, and a mark where its target lies."""

from collections.abc import Sequence
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from .results import Report, Row, number

WIDTH, MARGIN = 1060, 20
LABELS = 350
"""Where the labels end, right-aligned, and the bars begin a little later."""
BARS = 340
"""The longest bar."""
ROW, HEADING = 26, 44
BAR = 14
INK, FAINT, PAPER = "#1f2933", "#616e7c", "#ffffff"
OURS, OTHERS = "#b3264b", "#9aa5b1"
VERDICTS = {"met": "#1b6e3c", "missed": "#a4161a", "absent": FAINT, "": FAINT}


def chart(report: Report) -> str:
    """Rows that are compared with something: a target, or ours. Every benchmark and unit has its own scale."""
    groups = [(name, list(rows)) for name, rows in groupby(shown(report.rows), key=lambda row: row.benchmark)]
    height = 2 * MARGIN + HEADING + sum(HEADING + ROW * len(rows) for _, rows in groups)
    svg = Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height}", width=str(WIDTH),
        height=str(height), role="img",
    )  # fmt: skip
    svg.set("font-family", "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif")
    SubElement(svg, "title").text = "HeartGuard, measured"
    SubElement(svg, "rect", width="100%", height="100%", fill=PAPER)
    top = MARGIN + 14
    text(svg, MARGIN, top, "HeartGuard, measured", size=18, weight="600")
    text(svg, MARGIN, top + 20, subtitle(report), size=12, fill=FAINT)
    top += 20
    for name, rows in groups:
        top += HEADING
        text(svg, MARGIN, top - 12, name, size=14, weight="600")
        for row in rows:
            bar(svg, top, row, scale(row, rows))
            top += ROW
    indent(svg)
    return tostring(svg, encoding="unicode") + "\n"


def shown(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.ours or row.ratio is not None or row.value is None]


def scale(row: Row, rows: Sequence[Row]) -> float:
    """The number that the longest bar of this row's unit stands for."""
    return max([*(_extent(other) for other in rows if other.unit == row.unit), 1e-9])


def _extent(row: Row) -> float:
    aim = row.target.bound if row.target and row.ours else 0.0
    return max(row.value or 0.0, aim)


def bar(svg: Element, top: float, row: Row, full: float) -> None:
    """The label, the bar, the target's mark, and in words what the bar shows."""
    middle = top + BAR - 3
    text(svg, LABELS - 8, middle, row.what, anchor="end")
    length = max(0.0, row.value or 0.0) / full * BARS
    if row.value is not None:
        colour = OURS if row.ours else OTHERS
        SubElement(
            svg, "rect", x=str(LABELS), y=f"{top:g}", width=f"{length:.1f}", height=str(BAR), fill=colour, rx="2"
        )
    if row.value is not None and row.target and row.ours:
        mark = LABELS + row.target.bound / full * BARS
        SubElement(svg, "path", d=f"M{mark:.1f} {top - 4:g}v{BAR + 8}", stroke=INK, attrib={"stroke-width": "2"})
        length = max(length, mark - LABELS)
    words = text(svg, LABELS + length + 10, middle, measured(row))
    if row.verdict:
        verdict = SubElement(words, "tspan", fill=VERDICTS[row.verdict])
        verdict.set("font-weight", "600")
        verdict.text = f" {row.verdict}"


def measured(row: Row) -> str:
    if row.value is None:
        return ""
    words = f"{number(row.value)} {row.unit}"
    if row.ratio is not None:
        words += f", ours {number(row.ratio)} ×"
    if row.target is None:
        return words
    return f"{words} ({row.target.sense} {number(row.target.bound)}{'' if row.ours else ' ×'})"


def subtitle(report: Report) -> str:
    machine = report.machine
    return (
        f"{report.begun[:10]}, version {report.version}, {machine['cores']} cores of {machine['cpu']};"
        f" load average {report.load[0]:g} before. A mark shows a target."
        + (" Quick: rough figures." if report.quick else "")
    )


def text(
    parent: Element, x: float, y: float, words: str, *,
    size: int = 13, fill: str = INK, weight: str = "400", anchor: str = "start",
) -> Element:  # fmt: skip
    found = SubElement(parent, "text", x=f"{x:.1f}", y=f"{y:.1f}", fill=fill)
    found.set("font-size", str(size))
    found.set("font-weight", weight)
    found.set("text-anchor", anchor)
    found.text = words
    return found
