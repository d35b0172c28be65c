"""Other people's gateways, doing the same job: they check the token, limit the rate and pass the request on."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from ..context import Context
from ..results import Target
from . import envoy, fastify, flask
from .scene import Scene

Start = Callable[[Path, Scene, int], AbstractContextManager[Popen[bytes]]]


@dataclass(frozen=True)
class Peer:
    """``install`` gives the folder that ``start`` runs it from, on a port. ``target`` is of ours divided by it."""

    name: str
    target: Target
    install: Callable[[Context], Path]
    start: Start


PEERS = (
    Peer(envoy.NAME, Target("≥", 0.75), envoy.install, envoy.start),
    Peer(fastify.NAME, Target("≥", 1.2), fastify.install, fastify.start),
    Peer(flask.NAME, Target("≥", 8), flask.install, flask.start),
)
