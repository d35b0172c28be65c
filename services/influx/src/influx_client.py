"""What InfluxDB 2 is asked.

No client library: the official one's batching acknowledges before it has written, and building its
points costs ten times what sending them does.
"""

import json
import time
import zlib
from collections.abc import Iterator

from urllib3.response import BaseHTTPResponse

from heartguard.errors import ServiceError, Unavailable
from heartguard.logs import log

from .errors import TooMuch
from .influx_buckets import beginning_with
from .influx_http import Connections, InfluxError, Json, deadline, pieces

ALIVE_SECONDS = 1.0
"""How long it may take over the smallest question, where it is not known whether it works."""
_DIALECT = {"annotations": ["datatype", "default"], "header": True, "delimiter": ","}

_JSON = {"Content-Type": "application/json"}


class InfluxClient:
    """Speaks to one InfluxDB, in one of its organizations. Thread-safe.

    Points are compressed only for a server behind HTTPS. One that is spoken to in plain HTTP is on this machine or in
    its network, where packing and unpacking take more time than they save on the way.

    Raises :class:`Unavailable` where it does not answer or refuses the token, and :class:`InfluxError`
    for what else it refuses.
    """

    def __init__(self, url: str, token: str, org: str) -> None:
        self._http = Connections(url, token)
        self._org = org
        self._org_id: str | None = None
        self._compresses = url.lower().startswith("https:")
        self.close = self._http.close

    def write(self, bucket_id: str, lines: bytes, precision: str = "ns") -> None:
        """Write line protocol. A partial write is an :class:`InfluxError` with status 422."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._compresses:
            lines = zlib.compress(lines, 1, wbits=31)
            headers["Content-Encoding"] = "gzip"
        self._http.call(
            "POST",
            "/write",
            {"bucket": bucket_id, "precision": precision, "org": self._org},
            body=lines,
            headers=headers,
        )

    def query(self, flux: str, extern: Json, *, soon: bool = False) -> Iterator[str]:
        """The lines of the answer: annotated CSV. Once begun it has to be read to its end, or closed.

        ``soon`` says that it is a part of something that may not take as long as a query.
        """
        if not soon and not self._http.works:
            self.check(ALIVE_SECONDS)
        end = deadline(of_query=not soon)
        asked = {"query": flux, "extern": extern, "type": "flux", "dialect": _DIALECT}
        response = self._http.send(
            "POST",
            "/query",
            {"org": self._org},
            end,
            body=json.dumps(asked).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/csv"},
            timed_out=Unavailable if soon else self._too_much,
        )
        return _lines(response, end)

    def bucket(self, name: str) -> Json | None:
        """The bucket of that name."""
        try:
            found = self._http.call("GET", "/buckets", {"org": self._org, "name": name})["buckets"]
        except InfluxError as error:
            if error.is_missing:
                return None
            raise
        return next((bucket for bucket in found if bucket["name"] == name), None)

    def buckets(self, beginning: str = "") -> list[Json]:
        """Those whose names begin so, by name."""
        return beginning_with(beginning, self._page)

    def _page(self, offset: int, limit: int) -> list[Json]:
        """So many buckets from a place in the list on, without InfluxDB's own, which only some tokens see."""
        asked = {"org": self._org, "offset": str(offset), "limit": str(limit)}
        found = self._http.call("GET", "/buckets", asked)["buckets"]
        return [bucket for bucket in found if not bucket["name"].startswith("_")]

    def create_bucket(self, name: str, retention_seconds: int, description: str | None) -> Json | None:
        """Make a bucket; None where the name is taken."""
        rules = [{"type": "expire", "everySeconds": retention_seconds}] if retention_seconds else []
        new = {"orgID": self._organization_id(), "name": name, "retentionRules": rules}
        if description is not None:
            new["description"] = description
        try:
            return self._http.call("POST", "/buckets", {}, body=json.dumps(new).encode(), headers=_JSON, twice=False)
        except InfluxError as error:
            if error.code == "conflict":
                return None
            raise
        except Unavailable:  # the organization may have been made anew, with another id
            self._org_id = None
            raise

    def drop_bucket(self, bucket_id: str) -> bool:
        """Drop a bucket with all its points; whether there was one."""
        try:
            self._http.call("DELETE", f"/buckets/{bucket_id}", {})
        except InfluxError as error:
            if error.is_missing:
                return False
            raise
        return True

    def check(self, seconds: float | None = None) -> None:
        """Ask something that needs the token, the organization and the server's store; raises where that fails."""
        end = None if seconds is None else time.monotonic() + seconds
        self._http.call("GET", "/buckets", {"org": self._org, "limit": "1"}, end=end)

    def _too_much(self) -> ServiceError:
        """Why a question had no answer in time: it was too large, or InfluxDB answers nothing at all."""
        try:
            self.check(ALIVE_SECONDS)
        except Unavailable as away:
            return away
        return TooMuch()

    def _organization_id(self) -> str:
        if self._org_id is None:
            found = self._http.call("GET", "/orgs", {"org": self._org})["orgs"]
            if not found:
                log.error("influx", error="there is no such organization", to_do="set INFLUX_ORG to one that there is")
                raise Unavailable
            self._org_id = str(found[0]["id"])
        return self._org_id


def _lines(response: BaseHTTPResponse, end: float) -> Iterator[str]:
    """The body's lines with their ends, so that line breaks within quotes stay what they are."""
    rest = b""
    for piece in pieces(response, end):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode() + "\n"
    if rest:
        yield rest.decode()
