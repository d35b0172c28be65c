"""A small InfluxDB 2 for tests: an HTTP server on a free port that keeps everything in memory.

It does what InfluxDB's source says, as far as the time-series service makes use of it: writes with their partial
failures, buckets, and queries in Flux with ``extern``. Types of fields hold within a shard of seven days.
"""

import gzip
import json
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import fake_flux
from .fake_lines import LineError, Point, Value, lines, parse

TOKEN = "a token of the tests"
ORG = "heartguard"
PRECISIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
SHARD = 7 * 86_400 * 10**9
MOST_LISTED = 100
_PARTIAL = "failure writing points to database: partial write: "
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SeriesKey = tuple[str, tuple[tuple[str, str], ...], str]
"""Measurement, tags and field."""


def environ(url: str, **changes: str) -> dict[str, str]:
    """The settings with which the service uses it."""
    return {"INFLUX_URL": url, "INFLUX_TOKEN": TOKEN, "INFLUX_ORG": ORG, **changes}


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        self.status, self.code, self.message, self.headers = status, code, message, headers
        super().__init__(message)


@dataclass
class Bucket:
    id: str
    name: str
    retention: int
    description: str | None
    created: datetime
    series: dict[SeriesKey, dict[int, Value]] = field(default_factory=dict)
    types: dict[tuple[int, str, str], type] = field(default_factory=dict)

    def answer(self) -> dict[str, Any]:
        rules = [{"type": "expire", "everySeconds": self.retention}] if self.retention else []
        found = {"id": self.id, "orgID": "0" * 16, "type": "user", "name": self.name, "retentionRules": rules}
        found["createdAt"] = found["updatedAt"] = self.created.isoformat().replace("+00:00", "123Z")
        return {**found, "description": self.description} if self.description else found

    def write(self, points: list[Point], precision: int) -> None:
        """All but those that cannot be stored; what is said of these is of one shard, or else of the expired ones."""
        now = time.time_ns()
        times = [now if point.time is None else point.time * precision for point in points]
        oldest = now - self.retention * 10**9 if self.retention else min(times)
        conflicts: dict[int, list[str]] = {}
        for point, at in zip(points, times, strict=True):
            if at < oldest:
                continue
            if conflict := self._conflict(point, at):
                conflicts.setdefault(at // SHARD, []).append(conflict)
            else:
                self._store(point, at)
        if conflicts:
            first = conflicts[min(conflicts)]
            raise Refused(422, "unprocessable entity", f"{_PARTIAL}{first[0]} dropped={len(first)}")
        if expired := sum(at < oldest for at in times):
            why = f"dropped {expired} points outside retention policy of duration {self.retention // 3600}h0m0s"
            place = f"for database: {self.id} for retention policy: autogen"
            raise Refused(422, "unprocessable entity", f"{_PARTIAL}{why} dropped={expired} {place}")

    def _conflict(self, point: Point, at: int) -> str:
        for name, value in point.fields.items():
            stored = self.types.get((at // SHARD, point.measurement, name), type(value))
            if stored is not type(value):
                return (
                    f'field type conflict: input field "{name}" on measurement "{point.measurement}" is type'
                    f" {fake_flux.KINDS[type(value)]}, already exists as type {fake_flux.KINDS[stored]}"
                )
        return ""

    def _store(self, point: Point, at: int) -> None:
        for name, value in point.fields.items():
            self.types[at // SHARD, point.measurement, name] = type(value)
            self.series.setdefault((point.measurement, point.tags, name), {})[at] = value

    def tables(self) -> list[fake_flux.Table]:
        return [
            fake_flux.Table(
                {"_field": name, "_measurement": measurement, **dict(tags)},
                [{"_time": at, "_value": values[at]} for at in sorted(values)],
                fake_flux.KINDS[type(next(iter(values.values())))],
            )
            for (measurement, tags, name), values in sorted(self.series.items())
        ]


class FakeInflux:
    """What the server knows, and how often it was asked what."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.asked: list[tuple[str, str]] = []
        self.queries: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.seconds = 0.0
        """For which it takes its time, with every answer."""
        self.seconds_a_row = 0.0
        """The same with those of queries, for each row in their ranges."""
        self.rows = 0
        self.shows_its_own = True
        """Whether the token may see the buckets that are InfluxDB's own."""
        self.order: Callable[[list[str]], list[str]] = lambda results: random.sample(results, len(results))
        """Of a query's results, of which InfluxDB promises none."""

    def named(self, name: str) -> Bucket:
        found = next((bucket for bucket in self.buckets.values() if name in (bucket.id, bucket.name)), None)
        if found is None:
            raise Refused(404, "not found", f'bucket "{name}" not found')
        return found

    def create(self, wanted: dict[str, Any]) -> Bucket:
        name = wanted["name"]
        rules = wanted.get("retentionRules", [])
        every = rules[0]["everySeconds"] if rules else 0
        if wanted["orgID"] != "0" * 16:
            raise Refused(404, "not found", "organization not found")
        if any(bucket.name == name for bucket in self.buckets.values()):
            raise Refused(422, "conflict", f"bucket with name {name} already exists")
        if 0 < every < 3600:
            raise Refused(500, "internal error", "shard-group duration must be at least an hour")
        made = Bucket(secrets.token_hex(8), name, every, wanted.get("description"), datetime.now(UTC))
        self.buckets[made.id] = made
        return made

    def query(self, asked: dict[str, Any]) -> bytes:
        self.queries.append(asked)

        def storage(name: str) -> list[fake_flux.Table]:
            try:
                return self.named(name).tables()
            except Refused:
                message = f'failed to initialize execute state: could not find bucket "{name}"'
                raise Refused(404, "not found", message) from None

        try:
            statements = fake_flux.parse(asked["query"])
        except fake_flux.FluxError as error:
            raise Refused(400, "invalid", f"compilation failed: {error}") from None
        out: list[str] = []
        try:
            found = fake_flux.Evaluation(statements, (asked.get("extern") or {}).get("body", []), storage)
            self.rows += found.rows
            for name in self.order(list(found.results)):
                out += _csv(name, found.results[name], asked["dialect"]["annotations"])
        except fake_flux.FluxError as error:
            notes = {"datatype": "string,string", "group": "true,true", "default": ","}
            out += ["", *(f"#{note},{notes[note]}" for note in asked["dialect"]["annotations"])]
            out += ["error,reference", _row([str(error), ""])]
        return "".join(f"{line}\r\n" for line in out).encode()


def _csv(result: str, tables: list[fake_flux.Table], annotations: list[str]) -> Iterator[str]:
    before: list[str] = []
    for number, table in enumerate(tables):
        if not table.rows:
            continue
        first = table.rows[0]
        ahead = [name for name in ("_start", "_stop", "_time", "_value") if name in first]
        columns = ahead + sorted(name for name in first if name not in ahead)
        kinds = [table.kind if name == "_value" else _kind(first[name]) for name in columns]
        if columns + kinds != before:
            notes = {
                "datatype": ["string", "long", *kinds],
                "group": ["false", "false", *("true" if name in table.group else "false" for name in columns)],
                "default": [result, "", *[""] * len(columns)],
            }
            yield ""
            for note in annotations:
                yield _row([f"#{note}", *notes[note]])
            yield _row(["", "result", "table", *columns])
            before = columns + kinds
        for row in table.rows:
            yield _row(["", "", str(number), *[_written(name, row[name]) for name in columns]])


def _kind(value: object) -> str:
    return "dateTime:RFC3339" if isinstance(value, int) else "string"


def _written(name: str, value: Any) -> str:
    if name in ("_start", "_stop", "_time"):
        seconds, fraction = divmod(value, 10**9)
        moment = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
        digits = f".{fraction:09d}".rstrip("0") if fraction else ""
        return f"{moment}{digits}Z"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(repr(value), repr(value))
    return str(value)


def _row(cells: list[str]) -> str:
    """As Go's writer does with CR LF at the ends of lines: it takes carriage returns for part of these."""
    return ",".join(_cell(cell) for cell in cells)


def _cell(cell: str) -> str:
    if cell == "\\." or any(mark in cell for mark in ',"\r\n') or cell[:1].isspace():
        return '"' + cell.replace('"', '""').replace("\r", "").replace("\n", "\r\n") + '"'
    return cell


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fake = self.server.fake
        seconds = 0.0
        headers: dict[str, str] = {}
        try:
            if self.headers.get("Authorization") not in (f"Token {TOKEN}", f"Bearer {TOKEN}"):
                raise Refused(401, "unauthorized", "unauthorized access")
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            with fake.lock:
                fake.asked.append((method, url.path))
                before = fake.rows
                status, kind, answer = self._route(fake, method, url.path, asked, body)
                seconds = fake.seconds + (fake.rows - before) * fake.seconds_a_row
        except Refused as refused:
            status, kind, headers = refused.status, "application/json; charset=utf-8", refused.headers
            said = {"code": refused.code, "message": refused.message}
            answer = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
        time.sleep(seconds)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _route(
        self, fake: FakeInflux, method: str, path: str, asked: dict[str, str], body: bytes
    ) -> tuple[int, str, bytes]:
        json_type = "application/json; charset=utf-8"
        if asked.get("org", ORG) != ORG:
            raise Refused(404, "not found", f'organization name "{asked["org"]}" not found')
        if (method, path) == ("POST", "/api/v2/write"):
            _write(fake, asked, body)
            return 204, "", b""
        if (method, path) == ("POST", "/api/v2/query"):
            return 200, "text/csv; charset=utf-8", fake.query(json.loads(body))
        if (method, path) == ("GET", "/api/v2/orgs"):
            return 200, json_type, json.dumps({"orgs": [{"id": "0" * 16, "name": ORG}]}).encode()
        if (method, path) == ("GET", "/api/v2/buckets"):
            return 200, json_type, json.dumps({"buckets": _listed(fake, asked)}).encode()
        if (method, path) == ("POST", "/api/v2/buckets"):
            return 201, json_type, json.dumps(fake.create(json.loads(body)).answer()).encode()
        if method == "DELETE" and path.startswith("/api/v2/buckets/"):
            if fake.buckets.pop(path.rpartition("/")[2], None) is None:
                raise Refused(404, "not found", "bucket not found")
            return 204, "", b""
        raise Refused(404, "not found", "path not found")


LONG_AGO = _EPOCH.replace(microsecond=1)
_OWN = [
    Bucket("a" * 16, "_monitoring", 7 * 86_400, None, LONG_AGO),
    Bucket("b" * 16, "_tasks", 3 * 86_400, None, LONG_AGO),
]


def _listed(fake: FakeInflux, asked: dict[str, str]) -> list[dict[str, Any]]:
    """By name, of an organization; a token's rights are looked at when the page was made."""
    if "name" in asked:
        found = [bucket for bucket in fake.buckets.values() if bucket.name == asked["name"]]
        if not found:
            raise Refused(404, "not found", f'bucket "{asked["name"]}" not found')
        return [found[0].answer()]
    limit = int(asked.get("limit", "20"))
    if not 1 <= limit <= MOST_LISTED:
        raise Refused(400, "invalid", f"limit must be between 1 and {MOST_LISTED}")
    place = int(asked.get("offset", "0"))
    page = sorted([*_OWN, *fake.buckets.values()], key=lambda bucket: bucket.name)[place : place + limit]
    return [bucket.answer() for bucket in page if fake.shows_its_own or bucket not in _OWN]


def _write(fake: FakeInflux, asked: dict[str, str], body: bytes) -> None:
    bucket = fake.named(asked["bucket"])
    points, problems = [], []
    for line in lines(body.decode()):
        try:
            points.append(parse(line))
        except LineError as problem:
            problems.append(f"unable to parse '{line}': {problem}")
    if problems:
        raise Refused(400, "invalid", "\n".join(problems))
    bucket.write(points, PRECISIONS[asked.get("precision", "ns")])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeInflux

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that clients keep."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(port: int = 0, fake: FakeInflux | None = None) -> Iterator[tuple[str, FakeInflux]]:
    """The server's address and what it knows."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.fake = fake or FakeInflux()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.fake
    finally:
        server.shutdown()
        server.hang_up()
        server.server_close()
        thread.join(10)
