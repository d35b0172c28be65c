"""The limits of an influxd of ours: which fit which machine."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from heartguard.local.influx_limits import MB, limits, memory_of_machine

GB = 1024 * MB


def numbers(memory: int, cores: int) -> dict[str, int]:
    return {name: int(value) for name, value in limits(memory, cores).items()}


def test_on_a_usual_machine_influxdb_stays_under_a_gigabyte() -> None:
    found = numbers(24 * GB, 2)
    assert found == {
        "INFLUXD_QUERY_CONCURRENCY": 8,
        "INFLUXD_QUERY_QUEUE_SIZE": 64,
        "INFLUXD_QUERY_MEMORY_BYTES": 14_316_557,
        "INFLUXD_QUERY_INITIAL_MEMORY_BYTES": MB // 4,
        "INFLUXD_QUERY_MAX_MEMORY_BYTES": 21_474_836,
        "INFLUXD_STORAGE_CACHE_MAX_MEMORY_SIZE": 256 * MB,
        "INFLUXD_STORAGE_CACHE_SNAPSHOT_MEMORY_SIZE": 8 * MB,
        "GOMEMLIMIT": 12 * GB,
        "GOGC": 50,
    }


@pytest.mark.parametrize("cores", [1, 2, 16, 128])
@pytest.mark.parametrize("memory", [GB // 2, GB, 2 * GB, 4 * GB, 24 * GB, 512 * GB])
def test_influxdb_takes_them_anywhere(memory: int, cores: int) -> None:
    """It refuses to start where queries may have less in all than each has for itself."""
    found = numbers(memory, cores)
    at_once, initial = found["INFLUXD_QUERY_CONCURRENCY"], found["INFLUXD_QUERY_INITIAL_MEMORY_BYTES"]
    assert found["INFLUXD_QUERY_MAX_MEMORY_BYTES"] >= 2 * at_once * initial
    assert initial <= found["INFLUXD_QUERY_MEMORY_BYTES"] < found["INFLUXD_QUERY_MAX_MEMORY_BYTES"]
    assert at_once >= 8


def test_more_memory_means_more_for_queries() -> None:
    for less, more in pairwise(numbers(memory * GB, 4) for memory in (1, 2, 4, 64, 512)):
        for name, value in less.items():
            assert more[name] >= value
    assert numbers(512 * GB, 4)["INFLUXD_QUERY_MAX_MEMORY_BYTES"] > 300 * MB
    assert numbers(24 * GB, 64)["INFLUXD_QUERY_CONCURRENCY"] == 40


def machine(folder: Path, groups: str, files: Mapping[str, str]) -> int:
    """What a machine of 8 GB has for a process in those control groups."""
    proc = folder / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:        8388608 kB\nMemFree:         1 kB\n")
    (proc / "self" / "cgroup").write_text(groups)
    for path, content in files.items():
        file = folder / "cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return memory_of_machine(proc, folder / "cgroup")


@pytest.mark.parametrize(
    ("groups", "files", "memory"),
    [
        ("0::/\n", {}, 8 * GB),
        ("0::/a/b\n", {"a/memory.max": "max"}, 8 * GB),
        ("0::/a/b\n", {"a/b/memory.max": f"{2 * GB}", "a/memory.max": f"{4 * GB}"}, 2 * GB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": f"{3 * GB}"}, 3 * GB),
        ("0::/\n", {"memory.max": f"{GB}"}, GB),
        ("5:cpu:/a\n4:memory:/a\n", {"memory/a/memory.limit_in_bytes": f"{GB}"}, GB),
    ],
)
def test_the_memory_is_the_machines_or_the_least_of_its_control_groups(
    tmp_path: Path, groups: str, files: Mapping[str, str], memory: int
) -> None:
    assert machine(tmp_path, groups, files) == memory


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1024 kB\n")
    assert memory_of_machine(tmp_path, tmp_path) == MB
