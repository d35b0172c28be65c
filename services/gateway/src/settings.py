"""What the gateway is told by its environment (section 11 of the contract)."""

from dataclasses import dataclass
from pathlib import Path

from heartguard.services import SERVICES
from heartguard.settings import (
    ROOT,
    AuditSettings,
    Network,
    Rate,
    ServiceSettings,
    UploadSettings,
    integer,
    networks,
    origins,
    rate,
    url,
    variable,
)

_PORT = integer(1, 65_535)
_URL = url("http", "https")


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, UploadSettings, AuditSettings):
    """The limits, whom to trust, and where the services are."""

    rate_limit: Rate = variable("RATE_LIMIT", rate, "100/min")
    auth_rate_limit: Rate = variable("AUTH_RATE_LIMIT", rate, "10/min")
    allowed_origins: frozenset[str] = variable("ALLOWED_ORIGINS", origins, "")
    trusted_proxies: tuple[Network, ...] = variable("TRUSTED_PROXIES", networks, "")
    metrics_allow: tuple[Network, ...] = variable("METRICS_ALLOW", networks, "127.0.0.0/8,::1")
    threads: int = variable("THREADS", integer(1, 64), "4")
    upstream_timeout: int = variable("UPSTREAM_TIMEOUT_SECONDS", integer(1, 600), "20")
    """Seconds a service has to begin its answer, and then for each further piece of it.

    Longer than the services' own limits for a database statement (15 s) and for a database that does not answer
    (17 s), so that they get to say what was slow.
    """
    auth_port: int = variable("AUTH_PORT", _PORT, "5001")
    auth_url: str | None = variable("AUTH_URL", _URL, optional=True)
    org_port: int = variable("ORG_PORT", _PORT, "5002")
    org_url: str | None = variable("ORG_URL", _URL, optional=True)
    user_port: int = variable("USER_PORT", _PORT, "5003")
    user_url: str | None = variable("USER_URL", _URL, optional=True)
    media_port: int = variable("MEDIA_PORT", _PORT, "5004")
    media_url: str | None = variable("MEDIA_URL", _URL, optional=True)
    timeseries_port: int = variable("TIMESERIES_PORT", _PORT, "5005")
    timeseries_url: str | None = variable("TIMESERIES_URL", _URL, optional=True)
    audit_port: int = variable("AUDIT_PORT", _PORT, "5006")
    audit_url: str | None = variable("AUDIT_URL", _URL, optional=True)
    routes_file: Path = ROOT / "schemas" / "routes.json"
    openapi_file: Path = ROOT / "schemas" / "openapi.json"

    def upstreams(self) -> dict[str, str]:
        """The base URL of every service behind the gateway, by its name."""
        return {
            service.name: getattr(self, service.url_variable.lower())
            or f"http://127.0.0.1:{getattr(self, service.port_variable.lower())}"
            for service in SERVICES.values()
            if service.name != "gateway"
        }
