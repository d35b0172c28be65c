"""``heartguard bench`` at work: a small benchmark of it, its generator of load, and what is left when it is ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from benchmarks import influxd, lines, load, rig, windows
from benchmarks.context import Context
from benchmarks.gateway import PATH
from benchmarks.setups import ALONE, ON_INFLUX, ON_POSTGRES, Setup, staged
from heartguard.settings import ROOT

TIMEOUT = 120
two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


def bench(where: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "heartguard.cli.main", "bench", "--quick", *arguments]
    environ = {**os.environ, "TMPDIR": str(where)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


@two_cores
def test_a_small_benchmark_gives_table_json_and_chart(short_folder: Path, tmp_path: Path) -> None:
    result, picture = tmp_path / "result.json", tmp_path / "result.svg"
    with bench(short_folder, "latency", "--json", str(result), "--chart", str(picture)) as running:
        said, errors = running.communicate(timeout=TIMEOUT)
    assert running.returncode == 0, errors
    assert "added by the gateway, p50" in said
    rows = json.loads(result.read_text())["rows"]
    assert [row["what"] for row in rows] == ["added by the gateway, p50", "added by the gateway, p99"]
    assert all(row["details"]["through"] > 0 < row["details"]["direct"] for row in rows)
    assert "added by the gateway, p99" in picture.read_text()
    assert not list(short_folder.iterdir())


@two_cores
def test_told_to_end_it_leaves_nothing_behind(short_folder: Path) -> None:
    with bench(short_folder, "latency") as running:
        assert running.stderr is not None
        while "turn 0" not in (line := running.stderr.readline()):
            assert line, "it ended too early"
        started = rig.children(running.pid)
        running.terminate()
        running.communicate(timeout=TIMEOUT)
    assert running.returncode == 128 + signal.SIGTERM
    assert len(started) >= 3  # Valkey, the service behind the gateway, the gateway
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert not list(short_folder.iterdir())


def test_the_generator_counts_only_good_answers(free_port: Callable[[], int]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
    with rig.program(command, f"http://127.0.0.1:{port}/", {}):
        seen = load.by_our_own(port, PATH, "token", 1)
    assert seen.rate > 0
    assert 0 < seen.p50 <= seen.p99
    with pytest.raises(load.Broken, match="failed under load"):
        load.by_our_own(port, PATH, "token", 1)


def stored(setup: Setup) -> int:
    """How many points of :mod:`benchmarks.lines` can be read on that setup."""
    start, stop = "2023-11-14T00:00:00Z", "2023-12-14T00:00:00Z"
    if not setup.is_ours:
        chosen = f'from(bucket: "{influxd.BUCKET}") |> range(start: {start}, stop: {stop})'
        client = setup.client("application/vnd.flux")
        status, answer = client.post(
            f"/api/v2/query?org={influxd.ORG}", f'{chosen} |> group() |> count() |> keep(columns: ["_value"])'.encode()
        )
        client.close()
        assert status == 200, answer
        return int(answer.split()[-1].rpartition(b",")[2])
    asked = {
        "measurement": "heart_rate",
        "range_start": start,
        "range_stop": stop,
        "aggregate": "count",
        "window": "1d",
    }
    client = setup.client("application/json")
    status, answer = client.post("/timeseries/query", json.dumps({**asked, "window": "1d"}).encode())
    client.close()
    assert status == 200, answer
    return sum(result["value"] for result in json.loads(answer)["results"])


def test_lines_and_windows_do_the_same_on_every_setup(short_folder: Path, tmp_path: Path) -> None:
    context = Context(True, tmp_path, lambda _: None)
    with staged(short_folder) as stage, psycopg.connect(stage.database.store.superuser_url) as connection:
        expected = [ON_POSTGRES] if stage.missing else [ALONE, ON_INFLUX, ON_POSTGRES]
        assert [setup.name for setup in stage.setups] == expected
        for setup in stage.setups:
            contender = lines.Contender(setup)
            contender.turn(series=3, seconds=0.5)
            assert contender.rate > 0
            assert contender.cpu_of("all") > 0
            assert stored(setup) == contender.points > 0
        windows.fill_postgres(context, connection, 1, 2)
        if (alone := stage.setup(ALONE)) is not None:
            windows.fill_influx(context, alone, 1, 2)
        for asked in windows.ask(context, stage.setups, 2 * windows.DAY, tries=5):
            assert len(asked.latencies) == 5
            assert asked.row(None).value == round(asked.p95, 1) > 0
        if stage.missing:
            pytest.skip(f"of PostgreSQL it was seen; as for InfluxDB, {stage.missing}")
