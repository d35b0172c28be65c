"""What a web server's worker process does first: bind its life to its parent's, then load the service."""

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def load(parent: int, target: str) -> Callable[..., Any]:
    """The WSGI application that the factory ``target`` (``module:function``) makes.

    The worker dies with its ``parent``, even one that is killed: it would hold the port otherwise. Told to end
    while it loads, it does; with the handlers that it has from its parent it would not hear.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # structlog would load it, 4 MB, for terminals
    module, _, factory = target.partition(":")
    application: Callable[..., Any] = getattr(import_module(module), factory)()
    from flask import Flask  # not above: the parent, which serves nothing, would carry it (10 MB)

    if isinstance(application, Flask):
        application.wsgi_app = _without_settings(application.wsgi_app)  # type: ignore[method-assign]
    _spare_the_collector()
    return application


def _without_settings(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """``application``, shown only what belongs to the request: the web server adds the process's environment to it,
    secrets and all, which whatever shows an ``environ`` would tell."""
    inherited = tuple(os.environ)

    def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        for name in inherited:
            environ.pop(name, None)
        return application(environ, start_response)

    return bare


def _spare_the_collector() -> None:
    """What was loaded stays, so looking for garbage in it, for 50 ms at a time, is in vain; and a batch of
    thousands of points is no reason to look often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
