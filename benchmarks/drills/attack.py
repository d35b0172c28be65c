"""What runs beside the neighbours, in a process of its own, so that it does not slow down those who measure."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from queue import Empty
from typing import Any

from ..context import Broken

_SPAWN = multiprocessing.get_context("spawn")
END_SECONDS = 120


@dataclass
class Result:
    """Filled when the attack is over: what its function returned."""

    found: dict[str, int] = field(default_factory=dict)


def _run(work: Callable[..., dict[str, int]], over: Event, said: "Queue[dict[str, int]]", arguments: Any) -> None:
    said.put(work(over, *arguments))


@contextmanager
def attack(work: Callable[..., dict[str, int]], *arguments: Any) -> Iterator[Result]:
    """Run ``work`` while the block does; its first argument is an event that says that the block has ended."""
    over, said, result = _SPAWN.Event(), _SPAWN.Queue(), Result()
    process = _SPAWN.Process(target=_run, args=(work, over, said, arguments), daemon=True)
    process.start()
    try:
        yield result
        over.set()
        try:
            result.found = said.get(timeout=END_SECONDS)
        except Empty:
            raise Broken("the attack did not end") from None
    finally:
        over.set()
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
