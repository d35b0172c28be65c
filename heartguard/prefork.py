"""Worker processes of a server that has none of its own: begun, replaced when they die, ended together."""

import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

PATIENCE = 12.0
"""Seconds for the workers to end by themselves: they wait up to 10 for what is under way."""
PAUSE = 1.0
"""Seconds until those that died are replaced: one that cannot even begin should not keep a processor busy."""
TOLD = (signal.SIGTERM, signal.SIGINT)


def keep_running(number: int, work: Callable[[], None]) -> None:
    """Let ``number`` processes do ``work`` until this one is told to stop, by SIGTERM or SIGINT; then they are."""
    awaited = {*TOLD, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    workers = [_begun(work) for _ in range(number)]
    while signal.sigwait(awaited) not in TOLD:
        if dead := [place for place, worker in enumerate(workers) if not worker.is_alive()]:
            time.sleep(PAUSE)
            for place in dead:
                workers[place] = _begun(work)
    _end(workers)


def _begun(work: Callable[[], None]) -> BaseProcess:
    worker = get_context("fork").Process(target=_unblocked, args=(work,))
    worker.start()
    return worker


def _unblocked(work: Callable[[], None]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*TOLD, signal.SIGCHLD})
    work()


def _end(workers: list[BaseProcess]) -> None:
    end = time.monotonic() + PATIENCE
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()
