"""Whether the service of this container lives: exits 0 or 1. Docker and Kubernetes run it."""

import os
import sys
import urllib.request

from .services import SERVICES


def main(name: str | None = None) -> int:
    service = SERVICES[name or os.environ["SERVICE"]]
    port = os.environ.get(service.port_variable) or service.port
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{service.path}/health", timeout=2):
            return 0
    except OSError as problem:
        print(f"{service.name} does not answer on port {port}: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
