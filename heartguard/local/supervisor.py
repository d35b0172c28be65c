"""The supervisor (supervisord): its configuration, and how to talk to it.

It runs the stores and the services, and starts again what ends. Should it die itself, all of
them end too (``setpriv --pdeathsig``), so that no orphan holds a port or the database.
"""

import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import SetupError
from .files import write_private
from .layout import Layout
from .server import STOP_TIMEOUT, wait_until

ANSWER_TIMEOUT = 5.0

_HEAD = """\
[supervisord]
nodaemon=false
logfile={log}
logfile_maxbytes=10MB
logfile_backups=2
pidfile={root}/supervisord.pid
directory={root}
umask=077
nocleanup=true
{user}
[unix_http_server]
file={control}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

_PROGRAM = """
[program:{name}]
command={command}
directory={directory}
autostart=false
autorestart=true
startsecs=1
startretries=1000000
stopsignal={stop_signal}
stopwaitsecs=30
killasgroup=true
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=4
environment={environment}
"""

_GROUP = """
[group:{name}]
programs={programs}
priority={priority}
"""


@dataclass(frozen=True)
class Program:
    """Something to keep running. Groups are stopped one after another, ``services`` before ``stores``."""

    name: str
    group: str
    command: list[str]
    folder: Path
    stop_signal: signal.Signals = signal.SIGTERM
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it sees besides what all do; no secrets. Values hold none of the characters that Layout refuses."""

    @property
    def full_name(self) -> str:
        return f"{self.group}:{self.name}"


PRIORITIES = {"stores": 10, "services": 20}


def configuration(layout: Layout, programs: Iterable[Program]) -> str:
    """The supervisor's configuration file. It holds no secrets."""
    programs = list(programs)
    user = "user=root\n" if os.geteuid() == 0 else ""
    head = _HEAD.format(root=layout.root, log=layout.log("supervisor"), control=layout.control, user=user)
    parts = [head, *(_section(program, layout.log(program.name)) for program in programs)]
    for group, priority in PRIORITIES.items():
        if names := [program.name for program in programs if program.group == group]:
            parts.append(_GROUP.format(name=group, programs=",".join(names), priority=priority))
    return "".join(parts)


def _section(program: Program, log: Path) -> str:
    return _PROGRAM.format(
        name=program.name,
        command=_quoted(program.command),
        directory=program.folder,
        stop_signal=program.stop_signal.name.removeprefix("SIG"),
        log=log,
        environment=",".join(f'{name}="{value}"' for name, value in program.environment.items()),
    )


def _quoted(command: list[str]) -> str:
    """As supervisord reads it back: shell words, ``%`` doubled."""
    text = shlex.join(command).replace("%", "%%")
    if any(character in text for character in "\n;#"):
        raise SetupError(f"The supervisor cannot run a command with a line break, ';' or '#' in it: {text}")
    return text


@dataclass(frozen=True)
class State:
    """What the supervisor knows of a program: ``state`` is supervisord's word, such as RUNNING or BACKOFF."""

    name: str
    state: str
    pid: int
    seconds: int

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"


class Supervisor:
    """The supervisor of the stack in that data folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._file = layout.root / "supervisord.conf"

    def was_launched_for(self, programs: Iterable[Program]) -> bool:
        """Whether the running supervisor runs just these."""
        return self._file.read_text(encoding="utf-8") == configuration(self._layout, programs)

    def launch(self, programs: Iterable[Program], environ: dict[str, str]) -> None:
        """Start the supervisor, and nothing else yet. ``environ`` is what the services will see."""
        write_private(self._file, configuration(self._layout, programs))
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._file)],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise SetupError(f"The supervisor did not start:\n{said[-2000:]}")
        wait_until(self.answers, "The supervisor did not answer", 10)

    def answers(self) -> bool:
        try:
            self._call("supervisor.getState")
        except OSError:
            return False
        return True

    def states(self) -> dict[str, State]:
        """By name; empty where no supervisor runs."""
        try:
            found: Any = self._call("supervisor.getAllProcessInfo")
        except OSError:
            return {}
        return {
            info["name"]: State(info["name"], info["statename"], info["pid"], max(0, info["now"] - info["start"]))
            for info in found
        }

    def start(self, program: Program) -> None:
        """Begin to start it; it may take a while to be of use. Does nothing where it is started already."""
        try:
            self._call("supervisor.startProcess", program.full_name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise SetupError(f"{program.name} cannot be started: {fault.faultString}") from None

    def shut_down(self) -> None:
        """Stop everything, the stores last, and wait for the end."""
        try:
            pid = int(str(self._call("supervisor.getPID")))
            self._call("supervisor.shutdown")
        except OSError:
            return
        wait_until(lambda: not _alive(pid), "The stack did not stop", 2 * STOP_TIMEOUT)

    def _call(self, method: str, *arguments: Any) -> object:
        with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_Transport(self._layout.control)) as proxy:
            return getattr(proxy, method)(*arguments)


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over the supervisor's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _Connection(self._path)
        self._connection = host, connection  # where the base class looks for what it has to close
        return connection


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, with a time limit on every wait."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_TIMEOUT)
        self.sock.connect(str(self._path))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
