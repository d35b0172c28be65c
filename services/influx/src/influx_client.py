"""What InfluxDB 2 is asked.

No client library: docs/development.md says which were tried, and what each costs.
"""

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from urllib3.response import BaseHTTPResponse

from heartguard.errors import Unavailable
from heartguard.logs import log

from .errors import TooMuch
from .influx_buckets import beginning_with
from .influx_http import Connections, InfluxError, Json, deadline, pieces

_DIALECT = {"annotations": ["datatype", "default"], "header": True, "delimiter": ","}
_BUCKET = ("id", "orgID", "name", "createdAt", "updatedAt")
_JSON = {"Content-Type": "application/json"}
_TO_SEE = (
    "set INFLUX_ORG to an organization that there is, and INFLUX_TOKEN to one that may read and write all its buckets;"
    " where that has no bucket at all, make one: its id can be known by that alone"
)


T = TypeVar("T")


class InfluxClient:
    """Speaks to one InfluxDB, in one of its organizations. Thread-safe.

    Points are compressed only for a server behind HTTPS. One that is spoken to in plain HTTP is on this machine or in
    its network, where packing and unpacking take more time than they save on the way.

    Raises :class:`Unavailable` where it does not answer or refuses the token, and :class:`InfluxError`
    for what else it refuses.
    """

    def __init__(self, url: str, token: str, org: str) -> None:
        self._http = Connections(url, token, org)
        self._org = org
        self._org_id: str | None = None
        self._may_create = False
        self._compresses = url.lower().startswith("https:")
        self.close = self._http.close

    def write(self, bucket: str, lines: bytes, precision: str = "ns") -> None:
        """Write line protocol into the bucket of that name. A partial write is an :class:`InfluxError` of status 422.

        By name, not by id: a bucket that is being dropped has another name already, and takes no more points.
        """
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._compresses:
            lines = zlib.compress(lines, 1, wbits=31)
            headers["Content-Encoding"] = "gzip"
        asked = {"bucket": bucket, "precision": precision, "org": self._org}
        _again(lambda: self._http.call("POST", "/api/v2/write", asked, body=lines, headers=headers))

    def query(self, flux: str, extern: Json) -> Iterator[str]:
        """The lines of the answer: annotated CSV. Once begun it has to be read to its end, or closed.

        Raises :class:`TooMuch` where InfluxDB works, and does not answer in time.
        """
        asked = {"query": flux, "extern": extern, "type": "flux", "dialect": _DIALECT}
        body, headers = json.dumps(asked).encode(), {**_JSON, "Accept": "application/csv"}
        end, org = deadline(), {"org": self._org}
        send = partial(self._http.send, "POST", "/api/v2/query", org, end, body=body, headers=headers)
        return _lines(_again(lambda: send(timed_out=TooMuch)))

    def bucket(self, name: str) -> Json | None:
        """The bucket of that name."""
        try:
            found = self._buckets({"name": name})
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
        return [bucket for bucket in self._listed(offset, limit) if not bucket["name"].startswith("_")]

    def _listed(self, offset: int, limit: int) -> list[Json]:
        return self._buckets({"offset": str(offset), "limit": str(limit)})

    def _buckets(self, asked: Mapping[str, str]) -> list[Json]:
        found = self._http.call("GET", "/api/v2/buckets", {"org": self._org, **asked})
        return _checked(lambda: found["buckets"])

    def _created(self, new: Json) -> Json:
        body = json.dumps(new).encode()
        made = self._http.call("POST", "/api/v2/buckets", {}, body=body, headers=_JSON, twice=False)
        return _checked(lambda: [made])[0]

    def create_bucket(
        self, name: str, retention_seconds: int, shard_seconds: int, description: str | None
    ) -> Json | None:
        """Make a bucket; None where the name is taken."""
        new = {
            "orgID": self._organization_id(),
            "name": name,
            "retentionRules": [_rule(retention_seconds, shard_seconds)],
        }
        if description is not None:
            new["description"] = description
        try:
            return self._created(new)
        except InfluxError as error:
            if error.code == "conflict":
                return None
            raise
        except Unavailable:  # the organization may have been made anew, with another id
            self._org_id = None
            raise

    def rename_bucket(self, bucket_id: str, name: str) -> bool:
        """Give a bucket another name; whether there was one."""
        return self._change(bucket_id, {"name": name})

    def set_retention(self, bucket_id: str, retention_seconds: int, shard_seconds: int) -> bool:
        """Set how long points are kept, and the time that each new shard is for; whether there was such a bucket."""
        return self._change(bucket_id, {"retentionRules": [_rule(retention_seconds, shard_seconds)]})

    def _change(self, bucket_id: str, changes: Json) -> bool:
        try:
            self._http.call(
                "PATCH", f"/api/v2/buckets/{bucket_id}", {}, body=json.dumps(changes).encode(), headers=_JSON
            )
        except InfluxError as error:
            if error.is_missing:
                return False
            raise
        return True

    def drop_bucket(self, bucket_id: str) -> bool:
        """Drop a bucket with all its points; whether there was one. Nobody may be reading it: InfluxDB would crash."""
        try:
            self._http.call("DELETE", f"/api/v2/buckets/{bucket_id}", {})
        except InfluxError as error:
            if error.is_missing:
                return False
            raise
        return True

    def metrics(self) -> Iterator[str]:
        """The lines of InfluxDB's own metrics."""
        return _lines(self._http.send("GET", "/metrics", {}, deadline()))

    def unchanged_for(self, bucket: Json) -> timedelta:
        """How long ago a bucket, just listed, was changed last; by InfluxDB's own clock."""
        return self._http.server_time - datetime.fromisoformat(bucket["updatedAt"])

    def check(self) -> None:
        """Ask for what all work needs: the token, the organization, the store, and the right to make buckets.

        Raises :class:`Unavailable` where something of it is missing; the log says what.
        """
        org_id = self._organization_id(anew=True)
        if not self._may_create:
            self._may_create = self._try_to_create(org_id)

    def _try_to_create(self, org_id: str) -> bool:
        """Make a bucket whose name is taken: whoever may not make any is told so first. Raises where that is so."""
        taken = next(iter(self._page(0, 10)), None)
        if taken is None:
            return False  # there is no bucket yet, so that it cannot be told
        new = {"orgID": org_id, "name": taken["name"], "retentionRules": []}
        try:
            made = self._created(new)
        except InfluxError as error:
            return error.code == "conflict"
        self.drop_bucket(made["id"])  # it was dropped a moment before
        return True

    def _organization_id(self, *, anew: bool = False) -> str:
        """It stands in every bucket, which a token that may not list organizations sees too."""
        if self._org_id is None or anew:
            buckets = self._listed(0, 10)  # the first ones, InfluxDB's own, not every token sees
            if buckets:
                self._org_id = str(buckets[0]["orgID"])
            else:
                found = self._http.call("GET", "/api/v2/orgs", {"org": self._org})["orgs"]
                if not found:
                    log.error("influx", error="neither a bucket nor the organization can be seen", to_do=_TO_SEE)
                    raise Unavailable
                self._org_id = str(found[0]["id"])
        return self._org_id


def _again(ask: Callable[[], T]) -> T:
    """Ask up to three times: a bucket that was just made is a 500 until InfluxDB's storage engine has it too."""
    for seconds in (0.05, 0.2):
        try:
            return ask()
        except InfluxError as error:
            if not error.is_internal:
                raise
        time.sleep(seconds)
    return ask()


def _checked(buckets: Callable[[], list[Json]]) -> list[Json]:
    """Buckets that are ones. Raises :class:`Unavailable` where the answer was something else."""
    try:
        found = buckets()
        if all(isinstance(bucket[name], str) for bucket in found for name in _BUCKET):
            return found
    except (LookupError, TypeError):
        pass
    log.error("influx", path="/api/v2/buckets", error="the answer holds no buckets")
    raise Unavailable


def _rule(retention_seconds: int, shard_seconds: int) -> Json:
    return {"type": "expire", "everySeconds": retention_seconds, "shardGroupDurationSeconds": shard_seconds}


def _lines(response: BaseHTTPResponse) -> Iterator[str]:
    """The body's lines with their ends, so that line breaks within quotes stay what they are."""
    rest = b""
    for piece in pieces(response):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode() + "\n"
    if rest:
        yield rest.decode()
