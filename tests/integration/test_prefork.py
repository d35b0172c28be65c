"""Worker processes: replaced when they die, ended together, and killed where they do not end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heartguard.local.server import wait_until

PROGRAM = """
import os, signal, sys, time
from functools import partial
from heartguard import prefork

prefork.PAUSE, prefork.PATIENCE = 0.2, 1.0

def work(behaviour):
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "broken":
        os.write(1, b".")
    else:
        time.sleep(60)

prefork.keep_running(int(sys.argv[1]), partial(work, sys.argv[2]))
"""


@contextmanager
def running(number: int, behaviour: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(number), behaviour], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def workers(process: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_all_that_die_at_once_are_replaced_and_the_others_stay() -> None:
    with running(3, "patient") as process:
        wait_until(lambda: len(workers(process)) == 3, "They did not begin", 10)
        first, second, third = workers(process)
        os.kill(first, signal.SIGKILL)
        os.kill(third, signal.SIGKILL)
        wait_until(lambda: len(set(workers(process)) - {first, third}) == 3, "They were not replaced", 10)
        assert second in workers(process)
        process.terminate()
        assert process.wait(10) == 0


def test_one_that_cannot_begin_is_tried_again_and_keeps_no_processor_busy() -> None:
    with running(1, "broken") as process:
        time.sleep(2)
        process.terminate()
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert 2 <= len(process.stdout.read()) <= 11


def test_however_many_cannot_begin_they_end_at_once() -> None:
    with running(30, "broken") as process:
        time.sleep(1.5)
        told = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - told < 3


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_one_that_does_not_end_is_killed(told: signal.Signals) -> None:
    with running(1, "stubborn") as process:
        wait_until(lambda: len(workers(process)) == 1, "It did not begin", 10)
        time.sleep(0.5)
        process.send_signal(told)
        assert process.wait(10) == 0
