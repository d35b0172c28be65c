"""Work that comes back by itself: clearing away and mending, in the background."""

import threading
from collections.abc import Callable

from .logs import log


class Sweeper:
    """Calls ``sweep`` at once and then every ``seconds``, until stopped. A failure is logged, and tried again."""

    def __init__(self, sweep: Callable[[], None], seconds: float) -> None:
        self._sweep = sweep
        self._seconds = seconds
        self._stopped = threading.Event()
        # A daemon: the process need not wait for it, as an interrupted transaction is rolled back.
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 20) -> None:
        """End it, after what it is doing at the moment; ``timeout`` is in seconds."""
        self._stopped.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            try:
                self._sweep()
            except Exception:  # noqa: BLE001  (whatever it is, the next sweep has to come)
                log.exception("sweep")
            if self._stopped.wait(self._seconds):
                return
