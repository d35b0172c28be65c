"""The gateway's server: listens, answers on one event loop, and ends without cutting anything off."""

import asyncio
import signal

import uvloop

from heartguard.listening import BACKLOG, CONNECTIONS

from .client import Clients
from .front import Front

PATIENCE = 10.0
"""Seconds for what is under way when it is told to stop."""


def run(front: Front, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Others may listen on the same port: the kernel spreads connections over all."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(front, host, port))


async def _serve(front: Front, host: str, port: int) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    front.open(loop)
    clients = Clients(front.answer, CONNECTIONS)
    listening = await loop.create_server(clients, host, port, backlog=BACKLOG, reuse_port=True)
    try:
        await told.wait()
        listening.close()
        await clients.finish(PATIENCE)
    finally:
        front.close()
