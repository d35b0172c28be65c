"""A Node gateway as one would write it: ``@fastify/http-proxy``, ``jwt`` and ``rate-limit`` on Valkey."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from ..context import Context
from ..rig import SECRET, program
from .install import pinned, with_npm
from .scene import Scene

NAME = f"Node: Fastify {pinned('node/package.json', 'fastify')}"


def install(context: Context) -> Path:
    return with_npm(context, "node")


@contextmanager
def start(folder: Path, scene: Scene, port: int) -> Iterator[Popen[bytes]]:
    variables = {
        "PORT": str(port),
        "UPSTREAM": f"http://127.0.0.1:{scene.upstream}",
        "JWT_SECRET": SECRET,
        "VALKEY_SOCKET": scene.valkey_socket,
        "VALKEY_PASSWORD": scene.valkey_password,
    }
    with program(["node", "gateway.mjs"], f"http://127.0.0.1:{port}/", variables, cwd=folder) as running:
        yield running
