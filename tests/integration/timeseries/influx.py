"""The InfluxDB that the tests run on, as a test itself uses it: over HTTP, past the service.

It is a server that ``HEARTGUARD_TEST_INFLUX_URL``, ``_TOKEN`` and ``_ORG`` say where it is, or one that is started
from the ``influxd`` that was found, or else the imitation.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3

from . import fake_influx, influxd
from .influxd import Address, Influxd, Unusable

GIVEN = {name: os.environ.get(f"HEARTGUARD_TEST_{name}", "") for name in ("INFLUX_URL", "INFLUX_TOKEN", "INFLUX_ORG")}
REAL, IMITATION = "influx-real", "influx-fake"
PAGE = 100
Json = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """What to run on: ``given`` by its address, else ``found``; of neither, ``why`` says the reason."""

    given: Address | None
    found: Influxd | None
    why: str = ""

    @property
    def kind(self) -> str:
        return REAL if self.given or self.found else IMITATION

    def __str__(self) -> str:
        """For people."""
        if self.given:
            return f"InfluxDB {_version(self.given)} at {self.given.url}"
        if self.found:
            return f"InfluxDB {self.found.version} (found at {self.found.path})"
        return f"the imitation of InfluxDB ({self.why}: docs/development.md says how to get one)"


def choose() -> Choice:
    """Raises :class:`Unusable` where what was named cannot be taken."""
    given = Address(*GIVEN.values()) if all(GIVEN.values()) else None
    if given is None and any(GIVEN.values()):
        missing = ", ".join(f"HEARTGUARD_TEST_{name}" for name, value in GIVEN.items() if not value)
        raise Unusable(f"{missing}: is needed for a given InfluxDB, and not set")
    try:
        found = influxd.find()
    except Unusable as problem:
        if os.environ.get("INFLUXD"):
            raise
        return Choice(given, None, str(problem))
    return Choice(given, found, "" if found else "no influxd found")


def _version(address: Address) -> str:
    answer = urllib3.request("GET", f"{address.url}/health", retries=False, timeout=20)
    return str(answer.json()["version"]).removeprefix("v")


@contextmanager
def serving(choice: Choice, folder: Path, free_port: Callable[[], int]) -> Iterator["Influx"]:
    """The server that was chosen; a found one is started in ``folder``."""
    if choice.given:
        yield Influx(choice.given, REAL)
    elif choice.found:
        folder.mkdir()
        with influxd.serving(choice.found, folder, free_port()) as address:
            yield Influx(address, REAL)
    else:
        with fake_influx.serving() as address:
            yield Influx(address, IMITATION)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Influx:
    """One organization of a server."""

    address: Address
    kind: str

    def environ(self, **changes: str) -> dict[str, str]:
        """The settings with which the service uses it."""
        found = {"INFLUX_URL": self.address.url, "INFLUX_TOKEN": self.address.token, "INFLUX_ORG": self.address.org}
        return {**found, **changes}

    def by_way_of(self, url: str) -> "Influx":
        """The same behind another address."""
        return replace(self, address=replace(self.address, url=url))

    def call(self, method: str, path: str, body: bytes | Json | None = None, **asked: str | int) -> Answer:
        url = f"{self.address.url}/api/v2{path}?{urlencode(asked)}"
        sent = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {"Authorization": f"Token {self.address.token}", "Content-Type": "application/json"}
        answer = urllib3.request(method, url, body=sent, headers=headers, retries=False, timeout=60)
        return Answer(answer.status, answer.data)

    def write(self, bucket: str, *lines: str, precision: str = "ns") -> None:
        text = "\n".join(lines).encode()
        answer = self.call("POST", "/write", text, org=self.address.org, bucket=bucket, precision=precision)
        assert answer.status == 204, answer

    def query(self, text: str) -> str:
        """The answer's CSV."""
        answer = self.call("POST", "/query", {"query": text, "type": "flux"}, org=self.address.org)
        assert answer.status == 200, answer
        return answer.body.decode()

    def organization(self) -> str:
        """Its id."""
        return str(self.call("GET", "/buckets", org=self.address.org, limit=1).json["buckets"][0]["orgID"])

    def buckets(self) -> list[Json]:
        found: list[Json] = []
        while True:
            asked = {"org": self.address.org, "offset": len(found), "limit": PAGE}
            page = self.call("GET", "/buckets", None, **asked).json["buckets"]
            found += page
            if not page:
                return found

    def bucket(self, name: str) -> Json:
        (found,) = self.call("GET", "/buckets", org=self.address.org, name=name).json["buckets"]
        assert found["name"] == name
        return dict(found)

    def create(self, name: str, organization: str = "") -> None:
        wanted = {"orgID": organization or self.organization(), "name": name, "retentionRules": []}
        answer = self.call("POST", "/buckets", wanted)
        assert answer.status == 201, answer

    def change(self, bucket: str, **changes: Any) -> None:
        answer = self.call("PATCH", f"/buckets/{self.bucket(bucket)['id']}", changes)
        assert answer.status == 200, answer

    def keep_for(self, name: str, seconds: int) -> None:
        """Change a bucket's retention; InfluxDB wants shards that are no longer than it."""
        rule = {"type": "expire", "everySeconds": seconds, "shardGroupDurationSeconds": 3600}
        self.change(name, retentionRules=[rule])

    @contextmanager
    def token_for_buckets(self, *actions: str) -> Iterator[str]:
        """A token that may read and write all of the organization's buckets, or do one of both, and nothing else."""
        organization = self.organization()
        resource = {"type": "buckets", "orgID": organization}
        rights = [{"action": action, "resource": resource} for action in actions or ("read", "write")]
        answer = self.call("POST", "/authorizations", {"orgID": organization, "permissions": rights})
        if answer.status in (401, 403):
            pytest.skip("the token that was given may not make others")
        assert answer.status == 201, answer
        try:
            yield answer.json["token"]
        finally:
            self.call("DELETE", f"/authorizations/{answer.json['id']}")

    def drop(self, bucket_id: str) -> None:
        """Or find that it is gone."""
        answer = self.call("DELETE", f"/buckets/{bucket_id}")
        assert answer.status in (204, 404), answer
