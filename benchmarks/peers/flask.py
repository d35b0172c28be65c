"""A gateway of Flask, requests, PyJWT and redis-py on gunicorn's threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from ..context import Context
from ..rig import SECRET, program
from .install import HERE, into_venv, pinned
from .scene import Scene

NAME = f"Flask {pinned('flask.txt', 'flask')}, requests, gunicorn {pinned('flask.txt', 'gunicorn')}"
THREADS = 8


def install(context: Context) -> Path:
    return into_venv(context, "flask")


@contextmanager
def start(folder: Path, scene: Scene, port: int) -> Iterator[Popen[bytes]]:
    variables = {
        "UPSTREAM": f"http://127.0.0.1:{scene.upstream}",
        "JWT_SECRET": SECRET,
        "REDIS_URL": scene.valkey_url,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [str(folder / "bin" / "gunicorn"), "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"]
    command += ["--threads", str(THREADS), "--keep-alive", "120", "--log-level", "warning", "gateway:app"]
    with program(command, f"http://127.0.0.1:{port}/", variables, cwd=HERE / "wsgi") as running:
        yield running
