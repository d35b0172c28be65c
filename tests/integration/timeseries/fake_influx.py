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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from email.utils import formatdate
from typing import Any

from . import fake_lines, http_server
from .fake_buckets import DAY, SECOND, Bucket, Json, Refused, moment
from .fake_flux import Evaluation, FluxError, Storage, Table, instant
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
        for (method, pattern), handle in ROUTES.items():
            if method == request.method and (match := re.fullmatch(pattern, request.path)):
                return handle(self, request, *match.groups())
        if request.path == "/api/v2/buckets":
            return Answer(405)
        raise Refused(404, "not found", "path not found")

    def _rights_of(self, request: Request) -> set[str] | None:
        token = request.headers.get("authorization", "").partition(" ")[2]
        if token not in self._rights:
            raise UNAUTHORIZED
        return self._rights[token]

    def _health(self, _: Request) -> Answer:
        what = '"name":"influxdb", "message":"ready for queries and writes", "status":"pass", "checks":[]'
        said = f'{{{what}, "version": "{VERSION}", "commit": "imitated"}}\n'
        return Answer(200, {"Content-Type": JSON}, said.encode())

    def _ready(self, _: Request) -> Answer:
        said = {"status": "ready", "started": moment(self._made), "up": f"{(self._now() - self._made) / SECOND}s"}
        return Answer(200, {"Content-Type": JSON}, json.dumps(said, indent=4).encode() + b"\n")

    def _ping(self, _: Request) -> Answer:
        return Answer(204, VARY)

    def _metrics(self, _: Request) -> Answer:
        lines = [
            f'storage_shard_series{{bucket="{bucket.id}",engine="tsm1",id="{shard}"}} 1'
            for bucket in self._buckets.values()
            for shard in {shard for shards in bucket.types.values() for shard in shards}
        ]
        text = "\n".join(["go_threads 8", *lines, ""])
        return Answer(200, {"Content-Type": "text/plain; version=0.0.4", **CHUNKED}, text.encode())

    def _config(self, request: Request) -> Answer:
        self._rights_of(request)
        return _said(200, {"config": DEFAULT_LIMITS})

    def _check_right(self, request: Request, what: str) -> None:
        """To change buckets, or one of them."""
        rights = self._rights_of(request)
        if rights is not None and "write" not in rights:
            raise Refused(401, "unauthorized", f"write:orgs/{self._org_id}/{what} is unauthorized")

    # Buckets.

    def _by_id(self, bucket_id: str) -> Bucket:
        if bucket_id not in self._buckets:
            raise Refused(404, "not found", "bucket not found")
        return self._buckets[bucket_id]

    def _named(self, name: str) -> Bucket | None:
        return next((bucket for bucket in self._buckets.values() if name in (bucket.id, bucket.name)), None)

    def _get(self, request: Request, bucket_id: str) -> Answer:
        self._rights_of(request)
        return _said(200, self._by_id(bucket_id).answer())

    def _create(self, request: Request) -> Answer:
        self._check_right(request, "buckets")
        wanted = json.loads(request.body)
        if wanted.get("orgID") != self._org_id:
            raise Refused(404, "not found", "organization not found")
        made = Bucket(secrets.token_hex(8), self._org_id, "", self._now(), self._now())
        made.change(wanted, is_new=True)
        if any(bucket.name == made.name for bucket in self._buckets.values()):
            raise Refused(422, "conflict", f"bucket with name {made.name} already exists")
        self._buckets[made.id] = made
        return _said(201, made.answer())

    def _change(self, request: Request, bucket_id: str) -> Answer:
        self._check_right(request, f"buckets/{bucket_id}")
        bucket, wanted = self._by_id(bucket_id), json.loads(request.body)
        if any(other.name == wanted.get("name") for other in self._buckets.values() if other is not bucket):
            raise Refused(422, "conflict", "bucket name is not unique")
        bucket.change(wanted, is_new=False)
        bucket.changed = self._now()
        return _said(200, bucket.answer())

    def _drop(self, request: Request, bucket_id: str) -> Answer:
        self._check_right(request, f"buckets/{bucket_id}")
        del self._buckets[self._by_id(bucket_id).id]
        return Answer(204)

    def _list(self, request: Request) -> Answer:
        """By name, or without an organization by id. What a token may not see is left out of the page that was made."""
        rights, asked = self._rights_of(request), request.asked
        org, name, offset, limit = asked.get("org"), asked.get("name"), asked.get("offset", 0), asked.get("limit", 20)
        offset, limit = int(offset), int(limit)
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

        def link(offset: int) -> str:
            values = {"bucket": name, "descending": "false", "limit": limit, "offset": offset, "org": org}
            return "/api/v2/buckets?" + "&".join(f"{key}={value}" for key, value in values.items() if value is not None)

        links = {"prev": link(max(offset - limit, 0))} if offset else {}
        links |= {"self": link(offset), **({"next": link(offset + limit)} if len(page) == limit else {})}
        return _said(200, {"links": links, "buckets": [bucket.answer() for bucket in page]})

    def _organizations(self, request: Request) -> Answer:
        path = f"/api/v2/orgs/{self._org_id}"
        links = {name: f"{path}/{name}" for name in ("labels", "logs", "members", "owners", "secrets")}
        links |= {name: f"/api/v2/{name}?org={ORG}" for name in ("buckets", "dashboards", "tasks")} | {"self": path}
        times = dict.fromkeys(("createdAt", "updatedAt"), moment(self._made))
        found = {"links": dict(sorted(links.items())), "id": self._org_id, "name": ORG, "description": "", **times}
        seen = [found] if self._rights_of(request) is None else []
        return _said(200, {"links": {"self": "/api/v2/orgs"}, "orgs": seen})

    def _authorize(self, request: Request) -> Answer:
        self._rights_of(request)
        wanted, token = json.loads(request.body), secrets.token_urlsafe(16)
        self._rights[token] = {one["action"] for one in wanted["permissions"]}
        return _said(201, {**wanted, "id": token, "token": token})

    def _revoke(self, request: Request, token: str) -> Answer:
        self._rights_of(request)
        del self._rights[token]
        return Answer(204)

    # Points.

    def _bucket_of(self, asked: dict[str, str]) -> Bucket:
        if asked.get("org") != ORG:
            raise Refused(404, "not found", f'organization name "{asked.get("org")}" not found')
        bucket = self._named(asked["bucket"])
        if bucket is None:
            raise Refused(404, "not found", f'bucket "{asked["bucket"]}" not found')
        return bucket

    def _write(self, request: Request) -> Answer:
        rights = self._rights_of(request)
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
        self._rights_of(request)
        bucket = self._bucket_of(request.asked)
        wanted = json.loads(request.body)
        conditions = dict(re.findall(r'(\w+)="([^"]*)"', wanted.get("predicate", "")))
        if "_field" in conditions:
            raise Refused(501, "not implemented", "delete by field is not supported")
        bucket.delete(instant(wanted["start"]), instant(wanted["stop"]), conditions)
        return Answer(204)

    def _query(self, request: Request) -> Answer:
        self._rights_of(request)
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
        body = "".join(f"{line}\r\n" for line in lines).encode()
        headers = {"Content-Type": CSV, **VARY, **CHUNKED}
        if len(body) >= PACKED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
            return Answer(200, {"Content-Encoding": "gzip", **headers}, gzip.compress(body))
        return Answer(200, headers, body)

    def _storage(self, name: str) -> Storage:
        found = self._named(name)
        if found is None:
            raise FluxError(f"failed to initialize execute state: could not find bucket {json.dumps(name)}", 404)
        return found.read


ROUTES: dict[tuple[str, str], Callable[..., Answer]] = {
    ("GET", "/health"): FakeInflux._health,
    ("GET", "/ready"): FakeInflux._ready,
    ("GET", "/ping"): FakeInflux._ping,
    ("GET", "/metrics"): FakeInflux._metrics,
    ("GET", "/api/v2/config"): FakeInflux._config,
    ("GET", "/api/v2/orgs"): FakeInflux._organizations,
    ("POST", "/api/v2/authorizations"): FakeInflux._authorize,
    ("DELETE", "/api/v2/authorizations/(.*)"): FakeInflux._revoke,
    ("GET", "/api/v2/buckets"): FakeInflux._list,
    ("POST", "/api/v2/buckets"): FakeInflux._create,
    ("GET", "/api/v2/buckets/(.*)"): FakeInflux._get,
    ("PATCH", "/api/v2/buckets/(.*)"): FakeInflux._change,
    ("DELETE", "/api/v2/buckets/(.*)"): FakeInflux._drop,
    ("POST", "/api/v2/write"): FakeInflux._write,
    ("POST", "/api/v2/query"): FakeInflux._query,
    ("POST", "/api/v2/delete"): FakeInflux._delete,
}


def _said_by_go(body: bytes, problem: ValueError) -> str:
    """What is wrong with a body that is no JSON."""
    if not isinstance(problem, json.JSONDecodeError):
        return str(problem)
    found = body.decode()[problem.pos : problem.pos + 1]
    what = f"invalid character '{found}' looking for beginning of value" if found else "unexpected EOF"
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

INSTANTS = dict.fromkeys(("_start", "_stop", "_time"), "dateTime:RFC3339")


def _csv(result: str, tables: Sequence[Table], annotations: Sequence[str]) -> Iterator[str]:
    """The lines of a result; before those of other columns, and at the end, comes an empty one."""
    before: list[str] = []
    for number, table in enumerate(table for table in tables if table.rows):
        columns = table.columns
        kinds = [INSTANTS.get(name) or (table.kind if name == "_value" else "string") for name in columns]
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
    yield ""


def _text(column: str, value: Any) -> str:
    if column in INSTANTS:
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
