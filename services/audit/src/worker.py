"""A background thread that works until it is stopped, whatever goes wrong meanwhile."""

import threading
from abc import ABC, abstractmethod

from redis.exceptions import RedisError

from heartguard.errors import ServiceError
from heartguard.logs import log

RETRY = 0.5
"""Seconds to wait after a failure."""


class Worker(ABC):
    """Calls :meth:`work` again and again. The same failure is logged once, not at every try."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failing: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def work(self) -> float:
        """One round. Seconds to rest until the next."""

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 20.0) -> None:
        """End it, after the round under way."""
        self._stop.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._round())

    def _round(self) -> float:
        try:
            rest = self.work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round has to come
            self._note(error)
            return RETRY
        self._note(None)
        return rest

    def _note(self, error: Exception | None) -> None:
        """Log what changed: that it fails, that it fails in another way, that it works again."""
        problem = repr(error) if error else None
        if problem == self._failing:
            return
        self._failing = problem
        if error is None:
            log.info(f"{self._name} works again")
        elif isinstance(error, ServiceError | RedisError):  # a store is away
            log.warning(f"{self._name} fails", error=problem)
        else:
            log.error(f"{self._name} fails", exc_info=error)
