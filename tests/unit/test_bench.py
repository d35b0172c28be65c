"""What ``heartguard bench`` makes of its findings, and how it says that something is missing."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import influxd, latency, lines, rig, windows
from benchmarks.chart import BARS, LABELS, WIDTH, chart
from benchmarks.context import Broken, Context, Unavailable
from benchmarks.load import Seen, read_wrk
from benchmarks.peers import PEERS, install
from benchmarks.results import Report, Row, Target, absent, number
from benchmarks.setups import ALONE, ON_INFLUX, ON_POSTGRES, Setup
from benchmarks.suite import BENCHMARKS, attempt
from benchmarks.table import table
from benchmarks.windows import Asked, require_space
from benchmarks.wire import whole
from heartguard.cli.main import app
from services.influx.src.line_protocol import parse

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    Row(benchmark="gateway", what="HeartGuard", unit="requests/s", value=6_137.4, details={"p50 ms": 2.51}),
    Row(
        benchmark="gateway", what="Envoy", unit="requests/s", value=7_787, ours=False, ratio=0.788,
        target=Target("≥", 0.75),
    ),
    Row(benchmark="gateway", what="the limit", unit="requests/s", value=80_000, ours=False, note="all on one core"),
    absent("gateway", "Node <&>", "requests/s", "npm not found [red]", Target("≥", 1.2)),
    Row(benchmark="latency", what="added, p99", unit="ms", value=7.5, target=Target("≤", 5)),
]  # fmt: skip


def report(rows: list[Row]) -> Report:
    machine = {"cpu": "some", "cores": "2", "python": "3.11.7"}
    return Report(version="1", begun="2026-01-01T00:00:00Z", quick=True, machine=machine, load=(0.1, 1.2), rows=rows)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(True, tmp_path, lambda _: None)


def bench(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bench", *arguments], prog_name="heartguard", env={"COLUMNS": "200"})
    return result.exit_code, " ".join(result.output.split())


def test_verdicts() -> None:
    assert [row.verdict for row in ROWS] == ["", "met", "", "absent", "missed"]
    assert [row.aim for row in ROWS] == ["", "≥ 0.75 ×", "", "≥ 1.2 ×", "≤ 5 ms"]


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [("≥", 5.0, "met"), ("≥", 4.9, "missed"), ("≤", 5.0, "met"), ("≤", 5.1, "missed")],
)
def test_a_target_includes_its_bound(target: str, value: float, verdict: str) -> None:
    aim = Target(target, 5)  # type: ignore[arg-type]
    assert Row(benchmark="b", what="w", unit="u", value=value, target=aim).verdict == verdict


def test_numbers_have_three_figures_that_count() -> None:
    shown = [number(value) for value in (1_234_567.8, 812.4, 12.345, 0.7, 0.00123, 2)]
    assert shown == ["1,234,568", "812", "12.3", "0.7", "0.00123", "2"]


def test_the_json_holds_rows_and_verdicts() -> None:
    found = json.loads(report(ROWS).to_json())
    assert found["load"] == [0.1, 1.2]
    assert found["rows"][1] == {
        "benchmark": "gateway", "what": "Envoy", "unit": "requests/s", "value": 7787, "ours": False, "ratio": 0.788,
        "target": {"sense": "≥", "bound": 0.75}, "details": {}, "note": "", "verdict": "met",
    }  # fmt: skip
    assert found["rows"][3]["value"] is None


def test_a_benchmark_without_any_figure_makes_the_report_incomplete() -> None:
    assert report(ROWS).complete
    assert not report([*ROWS, absent("start", "failed", "", "why")]).complete


def test_a_busy_machine_is_told_of() -> None:
    quiet, busy = report(ROWS), msgspec.structs.replace(report(ROWS), load=(0.9, 0.1))
    assert "busy" not in str(table(quiet).caption)
    assert "busy" in str(table(busy).caption)


def test_the_table_shows_figures_verdicts_and_reasons() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(report(ROWS)))
    lines = captured.get().splitlines()
    envoy = next(line for line in lines if "Envoy" in line)
    assert [cell.strip() for cell in envoy.split("│")[2:7]] == [
        "Envoy",
        "7,787 requests/s",
        "0.788 ×",
        "≥ 0.75 ×",
        "met",
    ]
    node = next(line for line in lines if "Node" in line)
    assert "absent" in node
    assert "npm not found [red]" in node
    assert "rough figures" in " ".join(lines)


def test_the_chart_draws_bars_to_scale_and_marks_targets() -> None:
    svg = ET.fromstring(chart(report(ROWS)))
    bars = [float(bar.attrib["width"]) for bar in svg.iter(f"{SVG}rect") if bar.attrib["width"] != "100%"]
    assert bars == pytest.approx([6_137.4 / 7_787 * BARS, BARS, BARS], abs=0.1)
    (mark,) = svg.iter(f"{SVG}path")
    assert float(mark.attrib["d"].split()[0][1:]) == pytest.approx(LABELS + 5 / 7.5 * BARS, abs=0.1)


def test_the_chart_says_everything_in_words_too() -> None:
    svg = ET.fromstring(chart(report(ROWS)))
    words = ["".join(text.itertext()).strip() for text in svg.iter(f"{SVG}text")]
    assert "7,787 requests/s, ours 0.788 × (≥ 0.75 ×) met" in words
    assert "7.5 ms (≤ 5) missed" in words
    assert "Node <&>" in words
    assert "absent" in words
    assert "the limit" not in words  # it would dwarf what it limits
    assert all(0 <= float(text.attrib["x"]) <= WIDTH for text in svg.iter(f"{SVG}text"))


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    code, said = bench("gatway", "start")
    assert code == 1
    assert "no benchmark gatway; there are: gateway, latency, ingest, lines, windows, media, sign-in, start" in said


def test_a_result_file_is_refused_before_the_work() -> None:
    code, said = bench("latency", "--json", "/nowhere/at/all/result.json")
    assert code == 1
    assert "There is no folder /nowhere/at/all" in said


def test_outside_of_a_checkout_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartguard.cli.bench.ROOT", tmp_path)
    code, said = bench("latency")
    assert code == 1
    assert "from a checkout" in said


def test_the_help_has_examples_and_every_name() -> None:
    code, said = bench("--help")
    assert code == 0
    assert "heartguard bench --quick" in said
    assert all(name in said for name in BENCHMARKS)


def test_one_core_is_too_few(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig, "ALL_CORES", {0})
    (row,) = attempt("latency", context)
    assert row.verdict == "absent"
    assert "two cores" in row.note


def test_a_benchmark_that_fails_leaves_a_row(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "staged", lambda _: 1 / 0)
    monkeypatch.setattr(rig, "ALL_CORES", {0, 1})
    (row,) = attempt("latency", context)
    assert row.what == "failed"
    assert "ZeroDivisionError" in row.note


def test_a_disk_too_small_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="set TMPDIR"):
        require_space(tmp_path, 10**15)


def test_a_missing_influxd_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("INFLUXD", raising=False)
    with pytest.raises(Unavailable, match="there is no influxd in PATH: install InfluxDB 2, or set INFLUXD"):
        influxd.find()
    monkeypatch.setenv("INFLUXD", "/nowhere/influxd")
    with pytest.raises(Unavailable, match="INFLUXD is /nowhere/influxd, which is no program"):
        influxd.find()
    program = tmp_path / "influxd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.delenv("INFLUXD")
    assert influxd.find() == str(program)


def a_setup(name: str) -> Setup:
    return Setup(name, 1, "Bearer", "token", {"influxd": 1})


def contender(name: str, rate: float, cpu: float) -> lines.Contender:
    spent = [{"all": cpu, "influxd": cpu / 2}] * 3
    return lines.Contender(a_setup(name), rates=[1, rate, 10 * rate], latencies=[5, 6, 7], cpu=spent)


def test_influxdb_alone_is_what_lines_through_heartguard_are_held_against() -> None:
    contenders = [contender(ALONE, 1000, 3), contender(ON_INFLUX, 700, 4), contender(ON_POSTGRES, 200, 9)]
    alone, on_influx, on_postgres = lines.table("one series", contenders, "")
    assert (alone.ours, alone.value, alone.ratio, alone.verdict) == (False, 1000, 0.7, "met")
    assert alone.details["ratio by CPU"] == 0.75
    assert (on_influx.ours, on_influx.value, on_influx.verdict) == (True, 700, "")
    assert on_postgres.details["CPU µs/point, influxd"] == 4.5


def test_lines_without_influxdb_say_what_is_missing() -> None:
    on_postgres, missing = lines.table("one series", [contender(ON_POSTGRES, 200, 9)], "no influxd")
    assert on_postgres.value == 200
    assert (missing.what, missing.verdict, missing.note) == (f"{ON_INFLUX}, one series", "absent", "no influxd")


def test_every_batch_of_lines_has_points_of_its_own() -> None:
    batches = [lines.numbered(lines.batch(connection, 7), 17_000_000 + n) for connection in (0, 1) for n in (0, 1)]
    points = [point for batch in batches for point in parse(batch.decode(), 1)]
    keys = {(tuple(point[2].items()), point[4]) for point in points if isinstance(point, tuple)}
    assert len(points) == len(keys) == 4 * lines.POINTS
    assert {len(str(time)) for _, time in keys} == {13}


def test_a_day_of_lines_has_every_second_once(context: Context) -> None:
    text = b"".join(windows._batches(context, [windows.group(1, 2)], "")).decode()
    times = {(tags["user_id"], time) for _, _, tags, _, time in parse(text, 1)}  # type: ignore[misc]
    begin = int(windows.BEGIN.timestamp())
    assert times == {(user, second) for user in "12" for second in range(begin, begin + 86_400)}


def test_growth_is_judged_of_ours_only() -> None:
    small, large = (Asked(a_setup(ON_INFLUX), points, latencies=[ms]) for points, ms in ((86_400, 10), (864_000, 13)))
    row = windows.growth(small, large)
    assert (row.what, row.value) == (f"{ON_INFLUX}, p95 with 10 times the data", 1.3)
    assert row.verdict == "missed"
    small.setup = large.setup = a_setup(ALONE)
    assert windows.growth(small, large).verdict == ""


def test_missing_node_is_named(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(context.cache))
    with pytest.raises(Unavailable, match="node and npm not found: apt-get install nodejs npm"):
        install.with_npm(context, "node")


def test_every_peer_is_named_by_its_pinned_version() -> None:
    assert [peer.name.split(".")[0].rstrip("0123456789") for peer in PEERS] == ["Envoy ", "Node: Fastify ", "Flask "]


def test_a_peer_is_installed_once_and_again_when_its_pins_change(context: Context) -> None:
    def missing(wanted: str, *, fails: bool = False) -> bool:
        with install.filling(context, "peer", wanted) as (_, is_missing):
            if fails:
                raise Unavailable
        return is_missing

    with pytest.raises(Unavailable):
        missing("one==1", fails=True)
    assert missing("one==1")
    assert not missing("one==1")
    assert missing("one==2")


WRK = """Running 5s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  512.00us
     75%    2.31ms
     90%    4.00ms
     99%    1.25s
  30000 requests in 5.00s, 5.00MB read
Requests/sec:   6000.50
"""


def test_what_wrk_says_is_read() -> None:
    assert read_wrk(WRK) == Seen(6000.5, 0.512, 1250.0)


@pytest.mark.parametrize("wrong", ["  Non-2xx or 3xx responses: 5\n", "  Socket errors: connect 0, read 1\n"])
def test_errors_under_load_are_no_result(wrong: str) -> None:
    with pytest.raises(Broken, match="failed under load"):
        read_wrk(WRK + wrong)


def test_an_answer_is_whole_when_its_length_is_there() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: y\r\n\r\nhello"
    assert [whole(answer[:end]) for end in (10, 40, len(answer) - 1, len(answer))] == [False, False, False, True]


@pytest.mark.parametrize("head", [b"HTTP/1.1 429 X\r\ncontent-length: 0", b"HTTP/1.1 200 OK\r\nx: y"])
def test_another_answer_is_an_error(head: bytes) -> None:
    with pytest.raises(ValueError, match="answered"):
        whole(head + b"\r\n\r\n")


def test_a_program_that_ends_says_why(free_port: Callable[[], int]) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    with pytest.raises(Broken, match="no such luck"), rig.program(["sh", "-c", "echo no such luck; exit 1"], url, {}):
        pass
