"""What a web server's worker process does first: bind its life to its parent's, then load the service."""

import ctypes
import os
import signal
from collections.abc import Callable
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
    module, _, factory = target.partition(":")
    application: Callable[..., Any] = getattr(import_module(module), factory)()
    return application
