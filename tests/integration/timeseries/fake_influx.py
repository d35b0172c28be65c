"""A small InfluxDB 2 for tests on machines without a real one: an HTTP server that keeps everything in memory.

It has what the time-series service and the tests ask for, and answers as a real InfluxDB 2.9 does: the same statuses,
headers, bodies and chunks (:mod:`.test_timeseries_recordings`).
"""

import gzip
import json
import random
import re
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from email.utils import formatdate
from typing import Any

from . import fake_lines, http_server
from .fake_buckets import DAY, SECOND, Bucket, Json, Refused, moment
from .fake_flux import Evaluation, FluxError, Table, instant
from .http_server import Answer, Request
from .influxd import ORG, Address

VERSION = "v2.9.1"
PRECISIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": SECOND}
MOST_LISTED = 100
PACKED_FROM, CHUNKED_FROM = 1400, 2049
"""Bytes of a body."""
JSON, CSV = "application/json; charset=utf-8", "text/csv; charset=utf-8"
CHUNKED = {"Transfer-Encoding": "chunked"}
VARY = {"Vary": "Accept-Encoding"}
UNAUTHORIZED = Refused(401, "unauthorized", "unauthorized access")
INTERNAL = Refused(500, "internal error", "An internal error has occurred - check server logs")
DEFAULT_LIMITS = {
    "query-concurrency": 1024, "query-queue-size": 1024, "query-memory-bytes": 0, "query-max-memory-bytes": 0,
}  # fmt: skip


class FakeInflux:
    """One organization. ``begun`` is the time that it takes for the present one."""

    def __init__(self, begun: datetime | None) -> None:
        self._ahead = 0 if begun is None else int(begun.timestamp() * SECOND) - time.time_ns()
        self._lock = threading.Lock()
        self._org_id = secrets.token_hex(8)
        self._made = self._now()
        self._buckets: dict[str, Bucket] = {}
        self.token = secrets.token_urlsafe(16)
        self._rights: dict[str, set[str] | None] = {self.token: None}
        """Of each token: to read, or to write buckets; None is the operator's."""
        self._add("first")
        for name, days, what in (("_monitoring", 7, "monitoring"), ("_tasks", 3, "task")):
            bucket = self._add(name)
            bucket.kind, bucket.retention, bucket.shards = "system", days * DAY, DAY
            bucket.description = f"System bucket for {what} logs"

    def _now(self) -> int:
        return time.time_ns() + self._ahead

    def _add(self, name: str) -> Bucket:
        bucket = Bucket(secrets.token_hex(8), self._org_id, name, self._now(), self._now())
        self._buckets[bucket.id] = bucket
        return bucket

    def respond(self, request: Request) -> Iterator[bytes]:
        with self._lock:
            try:
                answer = self._answer(request)
            except Refused as refused:
                answer = _refusal(request, refused)
        headers = {**answer.headers, "X-Influxdb-Version": VERSION, "Date": formatdate(usegmt=True)}
        yield replace(answer, headers=headers).wire()

    def _answer(self, request: Request) -> Answer:
        method, path = request.method, request.path
        match method, path:
            case "GET", "/health":
                text = f'{{"name":"influxdb", "message":"ready for queries and writes", "status":"pass", "checks":[], "version": "{VERSION}", "commit": "imitated"}}\n'
                return Answer(200, {"Content-Type": JSON}, text.encode())
            case "GET", "/ready":
                up = f"{(self._now() - self._made) / SECOND}s"
                text = json.dumps({"status": "ready", "started": moment(self._made), "up": up}, indent=4)
                return Answer(200, {"Content-Type": JSON}, text.encode() + b"\n")
            case "GET", "/ping":
                return Answer(204, VARY)
            case "GET", "/metrics":
                return Answer(200, {"Content-Type": "text/plain; version=0.0.4", **CHUNKED}, self._metrics())
        token = request.headers.get("authorization", "").partition(" ")[2]
        if token not in self._rights:
            raise UNAUTHORIZED
        rights = self._rights[token]
        match method, path.removeprefix("/api/v2").split("/")[1:]:
            case "POST", ["write"]:
                return self._write(request, rights)
            case "POST", ["query"]:
                return self._query(request)
            case "POST", ["delete"]:
                return self._delete(request)
            case "GET", ["config"]:
                return _said(200, {"config": DEFAULT_LIMITS})
            case "GET", ["orgs"]:
                return _said(200, self._organizations(rights))
            case "POST", ["authorizations"]:
                return self._authorize(json.loads(request.body))
            case "DELETE", ["authorizations", token]:
                del self._rights[token]
                return Answer(204)
            case "GET", ["buckets"]:
                return _said(200, self._list(request.asked, rights))
            case "GET", ["buckets", bucket]:
                return _said(200, self._by_id(bucket).answer())
            case "POST", ["buckets"]:
                self._may_write(rights, "buckets")
                return self._create(json.loads(request.body))
            case "PATCH", ["buckets", bucket]:
                self._may_write(rights, f"buckets/{bucket}")
                return self._change(self._by_id(bucket), json.loads(request.body))
            case "DELETE", ["buckets", bucket]:
                self._may_write(rights, f"buckets/{bucket}")
                del self._buckets[self._by_id(bucket).id]
                return Answer(204)
            case _, ["buckets"]:
                return Answer(405)
        raise Refused(404, "not found", "path not found")

    def _may_write(self, rights: set[str] | None, what: str) -> None:
        if rights is not None and "write" not in rights:
            raise Refused(401, "unauthorized", f"write:orgs/{self._org_id}/{what} is unauthorized")

    def _metrics(self) -> bytes:
        lines = [
            f'storage_shard_series{{bucket="{bucket.id}",engine="tsm1",id="{shard}"}} 1'
            for bucket in self._buckets.values()
            for shard in {shard for shards in bucket.types.values() for shard in shards}
        ]
        return "\n".join(["go_threads 8", *lines, ""]).encode()

    # Buckets.

    def _by_id(self, bucket_id: str) -> Bucket:
        if bucket_id not in self._buckets:
            raise Refused(404, "not found", "bucket not found")
        return self._buckets[bucket_id]

    def _named(self, name: str) -> Bucket | None:
        return next((bucket for bucket in self._buckets.values() if name in (bucket.id, bucket.name)), None)

    def _create(self, wanted: Json) -> Answer:
        if "orgID" not in wanted:
            raise Refused(400, "invalid", "organization id must be provided")
        if wanted["orgID"] != self._org_id:
            raise Refused(404, "not found", "organization not found")
        made = Bucket(secrets.token_hex(8), self._org_id, "", self._now(), self._now())
        made.change({"retentionRules": [], **wanted}, is_new=True)
        if any(bucket.name == made.name for bucket in self._buckets.values()):
            raise Refused(422, "conflict", f"bucket with name {made.name} already exists")
        self._buckets[made.id] = made
        return _said(201, made.answer())

    def _change(self, bucket: Bucket, wanted: Json) -> Answer:
        if any(other.name == wanted.get("name") for other in self._buckets.values() if other is not bucket):
            raise Refused(422, "conflict", "bucket name is not unique")
        bucket.change(wanted, is_new=False)
        bucket.changed = self._now()
        return _said(200, bucket.answer())

    def _list(self, asked: dict[str, str], rights: set[str] | None) -> Json:
        """By name, or without an organization by id. What a token may not see is left out of the page that was made."""
        org, name, offset = asked.get("org"), asked.get("name"), int(asked.get("offset", 0))
        limit = int(asked.get("limit", 20))
        if not 1 <= limit <= MOST_LISTED:
            raise Refused(400, "invalid", f"limit must be between 1 and {MOST_LISTED}")
        if org not in (None, ORG):
            raise Refused(404, "not found", f'organization name "{org}" not found')
        found = sorted(self._buckets.values(), key=lambda bucket: bucket.name if org else bucket.id)
        if name is not None:
            found = [bucket for bucket in found if bucket.name == name]
            if org and not found:
                raise Refused(404, "not found", f'bucket "{name}" not found')
        page = [one for one in found[offset : offset + limit] if rights is None or one.kind == "user"]
        own = {"after": asked.get("after"), "bucket": name, "descending": "false", "limit": limit, "offset": offset}

        def link(offset: int) -> str:
            values = {**own, "offset": offset, "org": org}
            return "/api/v2/buckets?" + "&".join(f"{key}={value}" for key, value in values.items() if value is not None)

        links = {"prev": link(max(offset - limit, 0))} if offset else {}
        links |= {"self": link(offset), **({"next": link(offset + limit)} if len(page) == limit else {})}
        return {"links": links, "buckets": [bucket.answer() for bucket in page]}

    def _organizations(self, rights: set[str] | None) -> Json:
        path, by_name = (
            f"/api/v2/orgs/{self._org_id}",
            {name: f"/api/v2/{name}?org={ORG}" for name in ("buckets", "dashboards", "tasks")},
        )
        links = (
            by_name
            | {name: f"{path}/{name}" for name in ("labels", "logs", "members", "owners", "secrets")}
            | {"self": path}
        )
        found = {
            "links": dict(sorted(links.items())), "id": self._org_id, "name": ORG, "description": "",
            "createdAt": moment(self._made), "updatedAt": moment(self._made),
        }  # fmt: skip
        return {"links": {"self": "/api/v2/orgs"}, "orgs": [found] if rights is None else []}

    def _authorize(self, wanted: Json) -> Answer:
        token = secrets.token_urlsafe(16)
        self._rights[token] = {one["action"] for one in wanted["permissions"]}
        return _said(201, {**wanted, "id": token, "token": token})

    # Points.

    def _bucket_of(self, asked: dict[str, str]) -> Bucket:
        if asked.get("org") != ORG:
            raise Refused(404, "not found", f'organization name "{asked.get("org")}" not found')
        bucket = self._named(asked["bucket"])
        if bucket is None:
            raise Refused(404, "not found", f'bucket "{asked["bucket"]}" not found')
        return bucket

    def _write(self, request: Request, rights: set[str] | None) -> Answer:
        unit = PRECISIONS.get(request.asked.get("precision", "ns"))
        if unit is None:
            raise Refused(400, "invalid", "invalid precision; valid precision units are ns, us, ms, and s")
        bucket = self._bucket_of(request.asked)
        if rights is not None and "write" not in rights:
            raise Refused(403, "forbidden", "insufficient permissions for write")
        try:
            text = request.content.decode()
        except (OSError, EOFError):
            raise INTERNAL from None
        points, problems = fake_lines.read(text, unit)
        if problems:
            raise Refused(400, "invalid", "\n".join(problems))
        bucket.write(points, self._now())
        return Answer(204)

    def _delete(self, request: Request) -> Answer:
        bucket = self._bucket_of(request.asked)
        wanted = json.loads(request.body)
        conditions = dict(re.findall(r'(\w+)="([^"]*)"', wanted.get("predicate", "")))
        if "_field" in conditions:
            raise Refused(501, "not implemented", "delete by field is not supported")
        bucket.delete(instant(wanted["start"]), instant(wanted["stop"]), conditions)
        return Answer(204)

    def _query(self, request: Request) -> Answer:
        try:
            if request.asked.get("org") != ORG:
                raise ValueError(f'organization name "{request.asked.get("org")}" not found')
            asked = json.loads(request.body)
        except ValueError as problem:
            message = f"failed to decode request body: {_said_by_go(request.body, problem)}"
            return _said(400, {"code": "invalid", "message": message}, indented=False, **VARY)
        try:
            found = Evaluation(asked["query"], (asked.get("extern") or {}).get("body", []), self._storage, self._now())
        except FluxError as error:
            code = {400: "invalid", 404: "not found", 500: "internal error"}[error.status]
            said = {"code": code, "message": str(error)}
            return _said(error.status, said, indented=False, **VARY, **CHUNKED)
        names = random.sample([*found.results], len(found.results))  # there is no order among them
        annotations = asked.get("dialect", {}).get("annotations", [])
        lines = [line for name in names for line in _csv(name, found.results[name], annotations)]
        body = "".join(f"{line}\r\n" for line in lines or [""]).encode()
        headers = {"Content-Type": CSV, **VARY, **CHUNKED}
        if len(body) >= PACKED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
            return Answer(200, {"Content-Encoding": "gzip", **headers}, gzip.compress(body))
        return Answer(200, headers, body)

    def _storage(self, name: str) -> Bucket:
        found = self._named(name)
        if found is None:
            raise FluxError(f"failed to initialize execute state: could not find bucket {json.dumps(name)}", 404)
        return found


def _said_by_go(body: bytes, problem: ValueError) -> str:
    """What is wrong with a body that is no JSON."""
    if not isinstance(problem, json.JSONDecodeError):
        return str(problem)
    what = (
        "unexpected EOF"
        if problem.pos == len(body)
        else f"invalid character '{body.decode()[problem.pos]}' looking for beginning of value"
    )
    hint = "if sending a raw Flux script, set 'Content-Type: application/vnd.flux' in your request headers"
    return f"failed parsing request body as JSON; {hint}: {what}"


def _said(status: int, content: Json, *, indented: bool = True, **headers: str) -> Answer:
    """As Go writes JSON."""
    layout: Any = {"indent": "\t"} if indented else {"separators": (",", ":")}
    text = json.dumps(content, ensure_ascii=False, **layout)
    for mark in "&<>":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    body = text.encode()
    given = {"Content-Type": JSON, **({"X-Platform-Error-Code": content["code"]} if status >= 400 else {})}
    return Answer(status, {**given, **(CHUNKED if len(body) >= CHUNKED_FROM else {}), **headers}, body)


def _refusal(request: Request, refused: Refused) -> Answer:
    indented = refused is not UNAUTHORIZED and request.path not in ("/api/v2/write", "/api/v2/query", "/api/v2/delete")
    return _said(refused.status, {"code": refused.code, "message": refused.message}, indented=indented)


# CSV.


def _csv(result: str, tables: Sequence[Table], annotations: Sequence[str]) -> Iterator[str]:
    """The lines of a result; before those of other columns, and at the end, comes an empty one."""
    before: list[str] = []
    for number, table in enumerate(table for table in tables if table.rows):
        columns = table.columns
        kinds = [
            "dateTime:RFC3339" if name in ("_start", "_stop", "_time") else table.kind if name == "_value" else "string"
            for name in columns
        ]
        groups = ["true" if name in table.group else "false" for name in columns]
        if [*columns, *kinds, *groups] != before:
            if before:
                yield ""
            notes = {
                "datatype": ["string", "long", *kinds],
                "group": ["false", "false", *groups],
                "default": [result, "", *[""] * len(columns)],
            }
            for note in annotations:
                yield _line([f"#{note}", *notes[note]])
            yield _line(["", "result", "table", *columns])
            before = [*columns, *kinds, *groups]
        name = "" if "default" in annotations else result
        for row in table.rows:
            yield _line(["", name, str(number), *(_text(column, row.get(column, "")) for column in columns)])
    if before:
        yield ""


def _text(column: str, value: Any) -> str:
    if column in ("_start", "_stop", "_time"):
        return moment(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        special = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(repr(value))
        return special or format(Decimal(repr(value)), "f").removesuffix(".0")
    return str(value)


def _line(cells: Sequence[str]) -> str:
    """As Go's writer does with CR LF at the ends of lines: it takes carriage returns for part of these."""
    return ",".join(
        '"' + cell.replace('"', '""').replace("\r", "").replace("\n", "\r\n") + '"'
        if cell == "\\." or re.search(r'[,"\r\n]|\A\s', cell)
        else cell
        for cell in cells
    )


@contextmanager
def serving(begun: datetime | None = None) -> Iterator[Address]:
    """A new one."""
    fake = FakeInflux(begun)
    with http_server.serving(fake.respond) as server:
        yield Address(server.url, fake.token, ORG)
