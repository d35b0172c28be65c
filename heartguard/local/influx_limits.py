"""What an influxd of ours may use of this machine. InfluxDB 2 itself limits neither queries nor their memory.

InfluxDB counts only a part of the memory that a query takes. Of a window that its storage engine does not compute
itself (stddev, median) it counts a few bytes and holds a kilobyte, so that the limits are far below what is really
used: with 20 MB for all queries it took 0.81 GB while 32 at a time each asked for the deviations of a million windows,
under ingest; without limits one such query took 4.8 GB. Other queries take less than 64 KB by its count.

Shards are no part of that: each costs about a megabyte of Go's heap for as long as InfluxDB runs. A GOMEMLIMIT below
what they take would have it collect garbage all the time (with 1,000 shards and 700 MB a write took 88 ms instead of
2), so that it is only there to keep the machine from running out, and GOGC is what keeps garbage small.
"""

import os
from collections.abc import Iterator
from pathlib import Path

MB = 2**20
SHARE = 4
"""Besides its shards InfluxDB may have one part of so many of the machine's memory …"""
ENOUGH = 1024 * MB
"""… up to this,"""
SHARE_OF_LARGE = 32
"""except on large machines, where it may have this part."""
LEAST = 384 * MB
"""It takes 200 MB without any data."""
FOR_QUERIES = 1 / 50
"""The part of that which queries may use by InfluxDB's own count."""
PER_QUERY = 2 / 3
"""The part of all queries' memory that a single one may use."""
INITIAL = MB // 4
"""Each query has so much for itself, whatever the others use."""
PER_CORE = 4
LEAST_QUERIES, MOST_QUERIES = 8, 64
WAITING = 64
SNAPSHOT = 8 * MB
"""What a shard holds in memory before it writes a file. The default, 25 MB, took twice the memory and was no faster."""


def limits(memory: int, cores: int) -> dict[str, str]:
    """The environment of an influxd on a machine with so many bytes of memory and so many processor cores."""
    budget = max(LEAST, min(memory // SHARE, max(ENOUGH, memory // SHARE_OF_LARGE)))
    queries = int(budget * FOR_QUERIES)
    at_once = min(max(LEAST_QUERIES, PER_CORE * cores), MOST_QUERIES, queries // (2 * INITIAL))
    found = {
        "INFLUXD_QUERY_CONCURRENCY": at_once,
        "INFLUXD_QUERY_QUEUE_SIZE": WAITING,
        "INFLUXD_QUERY_MEMORY_BYTES": int(queries * PER_QUERY),
        "INFLUXD_QUERY_INITIAL_MEMORY_BYTES": INITIAL,
        "INFLUXD_QUERY_MAX_MEMORY_BYTES": queries,
        "INFLUXD_STORAGE_CACHE_MAX_MEMORY_SIZE": budget // 4,
        "INFLUXD_STORAGE_CACHE_SNAPSHOT_MEMORY_SIZE": SNAPSHOT,
        "GOMEMLIMIT": memory // 2,
        "GOGC": 50,
    }
    return {name: str(value) for name, value in found.items()}


def memory_of_machine(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that the processes of this control group may use."""
    installed = next(line for line in (proc / "meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    return min([int(installed.split()[1]) * 1024, *_group_limits(proc, groups)])


def _group_limits(proc: Path, groups: Path) -> Iterator[int]:
    """Of this process' control group and of those that it is in, of either version."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = root / path.lstrip("/")
        for folder in [own, *own.parents]:
            if folder.is_relative_to(root):
                yield from _number(folder / name)


def _number(file: Path) -> Iterator[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return
    if text.isdecimal():  # and not "max"
        yield int(text)


def of_this_machine() -> dict[str, str]:
    """The limits that fit here."""
    return limits(memory_of_machine(), len(os.sched_getaffinity(0)))
