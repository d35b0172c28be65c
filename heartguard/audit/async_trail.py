"""The same trail for an event loop, with the connection to Valkey that this has already."""

import asyncio

from ..errors import Unavailable
from ..pipeline import Pipeline
from .event import Event, encode
from .stream import APPEND, BOUND, STREAM, StreamFull
from .trail import Trail


class AsyncTrail:
    """Sends by ``pipeline``; what that cannot take goes by way of ``trail``, on a thread."""

    def __init__(self, pipeline: Pipeline, trail: Trail) -> None:
        self._pipeline = pipeline
        self._trail = trail

    async def put(self, *events: Event) -> None:
        """Return when the events are safe. Raises :class:`Unavailable` where nothing takes them."""
        encoded = [encode(event) for event in events]
        try:
            appended, run_id = await self._pipeline.run(APPEND, [STREAM], [BOUND, *encoded])
            if not appended:
                raise StreamFull
        except (Unavailable, StreamFull) as problem:
            await asyncio.to_thread(self._trail.put_aside, encoded, problem)
        else:
            self._trail.sent(encoded, run_id)
