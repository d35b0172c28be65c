"""InfluxDB's own client writes through the gateway, and its points are read back by the contract's query."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3
from influxdb_client import InfluxDBClient, Point, WriteOptions, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from redis import Redis

from heartguard.local.readiness import is_ready
from heartguard.services import SERVICES
from heartguard.settings import ROOT
from heartguard.valkey import REVOCATIONS_COMPLETE

from ..callers import SECRET, TOKENS
from ..waiting import wait_until
from .conftest import Backend, postgres_only
from .influx import Influx

POINTS = int(os.environ.get("HEARTGUARD_CLIENT_POINTS", "5000"))
"""``HEARTGUARD_CLIENT_POINTS=100000`` writes that many."""


@contextmanager
def process(service: str, port: int, environ: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "heartguard.serve", service, "--port", str(port)]
    environ = {"PATH": os.environ["PATH"], "JWT_SECRET": SECRET, "LOG_LEVEL": "ERROR", **environ}
    running = subprocess.Popen(command, cwd=ROOT, env=environ)
    try:
        wait_until(lambda: is_ready(SERVICES[service], port), 30)
        yield
    finally:
        running.terminate()
        running.wait(20)


@dataclass
class Front:
    """The gateway, and who asks it."""

    url: str
    org_id: int

    def token(self, role: str = "admin", user_id: int = 1) -> str:
        claims = {"sub": str(user_id), "role": role, "org_id": self.org_id, "sid": "s", "typ": "access"}
        return TOKENS.issue(**claims, seconds=600)[0]  # type: ignore[arg-type]

    def client(self, role: str = "admin", user_id: int = 1, **options: Any) -> InfluxDBClient:
        url = f"{self.url}/timeseries"
        return InfluxDBClient(url, self.token(role, user_id), org=str(self.org_id), retries=False, **options)

    def post(self, path: str, body: bytes, authorization: str, kind: str = "text/plain") -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": authorization, "Content-Type": kind}
        return urllib3.request("POST", self.url + path, body=body, headers=headers, timeout=60, retries=False)

    def count(self, **asked: Any) -> int:
        """How many points there are."""
        question = {
            "measurement": "m", "aggregate": "count", "window": "10000d", "range_start": "1970-01-01T00:00:00Z",
            "range_stop": "1997-01-01T00:00:00Z", **asked,
        }  # fmt: skip
        answer = self.post(
            "/timeseries/query", json.dumps(question).encode(), f"Bearer {self.token()}", "application/json"
        )
        assert answer.status == 200, answer.data
        return sum(row["value"] for row in answer.json()["results"])


@pytest.fixture(scope="module")
def front(
    backend: Backend, valkey_url: str, free_port: Callable[[], int], new_org: Callable[[], int]
) -> Iterator[Front]:
    with Redis.from_url(valkey_url) as redis:
        redis.set(REVOCATIONS_COMPLETE, redis.info("server")["run_id"])
    service, gateway = free_port(), free_port()
    with ExitStack() as stack:
        common = {"REDIS_URL": valkey_url, "AUDIT_SPOOL": stack.enter_context(tempfile.TemporaryDirectory())}
        stack.enter_context(process("timeseries", service, {**common, **backend.environ}))
        environ = {**common, "RATE_LIMIT": "1000000/s", "TIMESERIES_URL": f"http://127.0.0.1:{service}"}
        stack.enter_context(process("gateway", gateway, environ))
        yield Front(f"http://127.0.0.1:{gateway}", new_org())


def points(begin: int) -> list[Point]:
    return [
        Point("m").tag("device", f"d{n % 10}").field("f", float(n)).time(begin + n, WritePrecision.S)
        for n in range(POINTS)
    ]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_the_synchronous_client(front: Front, packed: bool) -> None:
    before = front.count()
    with front.client(enable_gzip=packed) as client:
        api = client.write_api(write_options=SYNCHRONOUS)
        written = points(1_000_000 * (2 + packed))
        for start in range(0, POINTS, 5000):
            api.write(bucket=f"org_{front.org_id}", record=written[start : start + 5000], write_precision="s")
    assert front.count() == before + POINTS


def test_the_batching_client(front: Front) -> None:
    before = front.count()
    options = WriteOptions(batch_size=1000, flush_interval=1000, max_retries=0)
    failures: list[Any] = []
    with front.client() as client, client.write_api(options, error_callback=lambda *seen: failures.append(seen)) as api:
        api.write(bucket=f"org_{front.org_id}", record=points(10_000_000), write_precision="s")
    assert failures == []
    assert front.count() == before + POINTS


def test_a_user_s_points_are_his_own(front: Front) -> None:
    with front.client("user", 7) as client:
        api = client.write_api(write_options=SYNCHRONOUS)
        api.write(bucket=f"org_{front.org_id}", record="m own=1 5\nm,user_id=7 own=2 6")
        with pytest.raises(ApiException) as refused:
            api.write(bucket=f"org_{front.org_id}", record="m own=1 7\nm,user_id=8 own=2 8")
    assert refused.value.status == 403
    assert json.loads(refused.value.body)["error"]["code"] == "TS_403"
    assert front.count(fields=["own"]) == 2
    assert front.count(fields=["own"], tags={"user_id": "7"}) == 2


INFLUX_CODES = {400: "invalid", 403: "forbidden", 404: "not found", 422: "unprocessable entity"}
REFUSED = {
    "no line that can be read": ("bad", "", 400),
    "no points": ("#", "", 400),
    "a line that cannot be read": ("m f=1\nbad", "", 422),
    "a reserved name": ("_m f=1", "", 422),
    "another type": ("m f=1\nm f=2i", "", 422),
    "a bucket that is not": ("m f=1", "&bucket=org_{0}_none", 404),
    "another organization's": ("m f=1", "&bucket=org_1", 403),
    "another organization": ("m f=1", "&org=1", 403),
    "no such precision": ("m f=1", "&precision=h", 422),
}


@pytest.mark.parametrize(("lines", "query", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(front: Front, lines: str, query: str, status: int) -> None:
    path = f"/timeseries/api/v2/write?{query.format(front.org_id)}"
    answer = front.post(path, lines.encode(), f"Token {front.token()}")
    assert answer.status == status, answer.data
    said = answer.json()
    assert list(said) == ["code", "message", "error"]
    assert (said["code"], said["message"]) == (INFLUX_CODES[status], said["error"]["message"])


@pytest.mark.parametrize("scheme", ["Token", "token", "Bearer"])
def test_the_token_s_scheme(front: Front, scheme: str) -> None:
    answer = front.post("/timeseries/api/v2/write?precision=ms", b"m scheme=1 1", f"{scheme} {front.token()}")
    assert (answer.status, answer.data) == (204, b"")


@postgres_only
def test_elsewhere_a_token_is_a_bearer_s(front: Front) -> None:
    assert front.post("/timeseries/write", b"m scheme=1 1", f"Token {front.token()}").status == 401
    assert front.post("/timeseries/api/v2/write", b"m scheme=1 1", f"Basic {front.token()}").status == 401
    assert front.post("/timeseries/api/v2/write", b"m scheme=1 1", "Token nonsense").status == 401


def test_the_client_and_influxdb_understand_each_other(influx: Influx, org: int) -> None:
    """Buckets, points and answers: of the imitation, too, it says what the client expects of InfluxDB."""
    address = influx.address
    with InfluxDBClient(address.url, address.token, org=address.org) as client:
        name = f"org_{org}_client"
        bucket = client.buckets_api().create_bucket(bucket_name=name, org=address.org)
        api = client.write_api(write_options=SYNCHRONOUS)
        text = 'a "b"\\\n'
        api.write(bucket=name, record=[Point("m").tag("t, =", "v").field("s", text).field("i", 2**62).time(1)])
        api.write(bucket=name, record=[Point("m").tag("t, =", "v").field("f", 1.5).field("b", True).time(2)])
        query = "from(bucket: name) |> range(start: begin, stop: end)"
        params = {"name": name, "begin": datetime(1970, 1, 1, tzinfo=UTC), "end": datetime(1971, 1, 1, tzinfo=UTC)}
        records = [record for table in client.query_api().query(query, params=params) for record in table.records]
        found = {record.get_field(): record.get_value() for record in records}
        assert found == {"s": text.replace("\n", "\r\n"), "i": 2**62, "f": 1.5, "b": True}
        assert {record.values["t, ="] for record in records} == {"v"}
        assert client.buckets_api().find_bucket_by_name(name).id == bucket.id
        client.buckets_api().delete_bucket(bucket)
        assert name not in {one.name for one in client.buckets_api().find_buckets(limit=100).buckets}
