"""What the InfluxDB at INFLUX_URL is, asked once before the service starts.

Only InfluxDB 2 will do. One that is away, or does not say, is no reason not to start.
"""

import re
from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from heartguard.logs import log
from heartguard.settings import SettingsError

TIMEOUT = urllib3.Timeout(total=1.0)
UNLIMITED = 2**62
"""More is no limit; 0 is none either."""
MANY = 1000
"""Queries at once. InfluxDB's default is 1,024."""
LIMITED = {
    "query-concurrency": MANY,
    "query-queue-size": 2**30,
    "query-memory-bytes": UNLIMITED,
    "query-max-memory-bytes": UNLIMITED,
}
"""InfluxDB's settings that limit queries, and from which value on they do not."""
TO_DO = "docs/operations.md, section InfluxDB, says what to set"
_MAJOR = re.compile(r"v?(\d+)\.")


def refuse_other_versions(url: str, token: str) -> None:
    """Raises :class:`SettingsError` where the server says that it is InfluxDB 1 or 3. Logs what else is to be known."""
    try:
        with urllib3.PoolManager(headers={"Authorization": f"Token {token}"}) as pool:
            version = _version(pool, url)
            major = _MAJOR.match(version)
            if major and major[1] != "2":
                raise SettingsError(
                    f"INFLUX_URL: there is InfluxDB {version}, and HeartGuard needs InfluxDB 2: others know no buckets"
                    " or no Flux. Set it to the address of an InfluxDB 2, or keep points in PostgreSQL:"
                    " TIMESERIES_BACKEND=postgres"
                )
            _tell_limits(pool, url)
    except HTTPError as error:
        log.warning("influx", error=f"its version cannot be asked for now: {error!r}"[:300])


def _version(pool: urllib3.PoolManager, url: str) -> str:
    """As the server says it; empty where it does not."""
    answer = _get(pool, f"{url}/ping")
    if found := answer.headers.get("X-Influxdb-Version"):
        return found
    if "cluster-uuid" in answer.headers:
        return "3.x"  # which keeps its version from whoever has no token of its own
    return str(_json(_get(pool, f"{url}/health")).get("version", ""))


def _tell_limits(pool: urllib3.PoolManager, url: str) -> None:
    answer = _get(pool, f"{url}/api/v2/config")
    config = _json(answer).get("config") if answer.status == 200 else None
    if not isinstance(config, Mapping):
        log.info("influx", limits="whether queries are limited cannot be seen with this token", to_do=TO_DO)
    elif missing := [name for name, most in LIMITED.items() if not 0 < _number(config.get(name)) < most]:
        error = "queries are not limited: those of a single user could take all of the machine's memory"
        log.warning("influx", error=error, missing=missing, to_do=TO_DO)


def _get(pool: urllib3.PoolManager, url: str) -> BaseHTTPResponse:
    return pool.request("GET", url, timeout=TIMEOUT, retries=False, redirect=False)


def _json(answer: BaseHTTPResponse) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
