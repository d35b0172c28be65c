"""Which services there are here, and whether they can work."""

import http.client
from importlib.util import find_spec

from ..services import SERVICES, Service

HOST = "127.0.0.1"
ANSWER_TIMEOUT = 5.0


def installed_services() -> list[Service]:
    """The services that this installation has: a service's own container holds only that one."""
    return [service for service in SERVICES.values() if find_spec(service.package)]


def is_ready(service: Service, port: int) -> bool:
    """Whether the service says that it and all it depends on can work."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT)
    try:
        connection.request("GET", f"{service.path}/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
