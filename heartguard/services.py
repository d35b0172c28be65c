"""Which services there are: their names, folders, ports and paths."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """One service. ``prefix`` begins its error codes, ``path`` its routes.

    One that faces clients has a ``create_front``, and a module ``server`` that runs it on an event loop.
    """

    name: str
    prefix: str
    folder: str
    port: int
    port_variable: str
    url_variable: str
    path: str
    faces_clients: bool = False
    threads: int = 4
    """Of a worker, by default."""

    @property
    def package(self) -> str:
        return f"services.{self.folder}.src"


SERVICES = {
    service.name: service
    for service in (
        Service("gateway", "GATEWAY", "gateway", 5000, "GATEWAY_PORT", "GATEWAY_URL", "/gateway", faces_clients=True),
        Service("auth", "AUTH", "auth", 5001, "AUTH_PORT", "AUTH_URL", "/auth"),
        Service("organization", "ORG", "organization", 5002, "ORG_PORT", "ORG_URL", "/organization"),
        Service("user", "USER", "user", 5003, "USER_PORT", "USER_URL", "/users"),
        Service("media", "MEDIA", "media", 5004, "MEDIA_PORT", "MEDIA_URL", "/media"),
        Service("timeseries", "TS", "influx", 5005, "TIMESERIES_PORT", "TIMESERIES_URL", "/timeseries", threads=8),
        Service("audit", "AUDIT", "audit", 5006, "AUDIT_PORT", "AUDIT_URL", "/audit"),
    )
}
