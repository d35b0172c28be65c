"""Requests whose answers by a real InfluxDB were recorded, played again to another one.

The files lie beside the project (``../shared/influxdb``), or where ``HEARTGUARD_TEST_INFLUX_RECORDINGS`` says: one JSON
object a line, with ``request`` and ``response``. They are played in their order to a server that is new.
"""

import csv
import gzip
import http.client
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heartguard.settings import ROOT

from .http_server import Answer
from .influxd import Address

FILES = ("api", "suite")
HEADERS = ("content-type", "content-encoding", "transfer-encoding", "vary", "x-platform-error-code")
"""Those that matter to a client."""
_ID = re.compile(r"\b[0-9a-f]{16}\b")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
_MADE = re.compile(r'"(createdAt|updatedAt|started)": "[^"]*"|"(up|version|commit)": *"[^"]*"')


def folder() -> Path | None:
    """Where they are; None where they are not in reach."""
    found = Path(os.environ.get("HEARTGUARD_TEST_INFLUX_RECORDINGS") or ROOT.parent / "shared" / "influxdb")
    return found if all((found / f"{name}.jsonl").is_file() for name in FILES) else None


@dataclass(frozen=True)
class Exchange:
    """``number`` is its place in the file of that ``name``."""

    name: str
    number: int
    request: Mapping[str, Any]
    response: Mapping[str, Any]

    @property
    def body(self) -> bytes:
        text: str = self.request["text"]
        return text.encode()


def exchanges(folder: Path, name: str) -> list[Exchange]:
    with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [Exchange(name, one["n"], one["request"], one["response"]) for one in map(json.loads, lines)]


def count(folder: Path) -> int:
    return sum(len(exchanges(folder, name)) for name in FILES)


def made(exchanges: list[Exchange]) -> datetime:
    """When they were recorded: by the first bucket that was made."""
    answers = (one.response for one in exchanges if one.response["status"] == 201)
    return datetime.fromisoformat(json.loads(next(answers)["text"])["createdAt"])


@dataclass
class Player:
    """Plays exchanges to a server. Ids differ from server to server: ``ids`` has its own for recorded ones."""

    address: Address
    ids: dict[str, str] = field(default_factory=dict)

    def play(self, exchange: Exchange, token: str | None, *, packed: bool = True) -> Answer:
        """Send the request, and learn ids from the answer."""
        request = exchange.request
        headers = dict(request["headers"])
        body = self._own(exchange.body)
        if packed and headers.get("content-encoding") == "gzip":
            body = gzip.compress(body)
        if token:
            headers["authorization"] = f"Token {token}"
        connection = http.client.HTTPConnection(urlsplit(self.address.url).netloc, timeout=60)
        try:
            target = self._own(request["path"].encode()).decode()
            connection.request(request["method"], target, body or None, headers)
            answer = connection.getresponse()
            found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()
        if "json" in found.headers.get("content-type", ""):
            self._learn(json.loads(exchange.response["text"] or "{}"), json.loads(found.body))
        return found

    def _own(self, sent: bytes) -> bytes:
        return _ID.sub(lambda found: self.ids.get(found[0], found[0]), sent.decode()).encode()

    def recorded(self, text: str) -> str:
        """A server's text with the recorded ids."""
        others = {own: recorded for recorded, own in self.ids.items()}
        return _ID.sub(lambda found: others.get(found[0], found[0]), text)

    def _learn(self, recorded: Any, own: Any) -> None:
        if isinstance(recorded, dict) and isinstance(own, dict):
            for key in recorded.keys() & own.keys():
                if key in ("id", "orgID"):
                    self.ids[recorded[key]] = own[key]
                else:
                    self._learn(recorded[key], own[key])
        elif isinstance(recorded, list) and isinstance(own, list):
            named = {one["name"]: one for one in own if isinstance(one, dict) and "name" in one}
            for one in recorded:
                if isinstance(one, dict) and one.get("name") in named:
                    self._learn(one, named[one["name"]])

    def differences(self, exchange: Exchange, answer: Answer) -> Iterator[str]:
        """In what an answer differs from the recorded one."""
        wanted = exchange.response
        if answer.status != wanted["status"]:
            yield f"status {answer.status}, not {wanted['status']}"
        for name in HEADERS:
            if answer.headers.get(name) != wanted["headers"].get(name):
                yield f"{name} {answer.headers.get(name)!r}, not {wanted['headers'].get(name)!r}"
        if ("content-length" in answer.headers) != ("content-length" in wanted["headers"]):
            yield f"content-length {answer.headers.get('content-length')}"
        kind = answer.headers.get("content-type", "")
        found = _shown(kind, self.recorded(answer.content.decode()))
        if found != _shown(kind, wanted["text"]):
            yield f"{found}\n  not {_shown(kind, wanted['text'])}"


def _shown(kind: str, text: str) -> Any:
    """What is compared of a body: the results of CSV by their names, since they come in any order."""
    if kind.startswith("text/csv"):
        results = _results(text)
        return results if len(results) > 1 else text
    return _MOMENT.sub("…", _MADE.sub("…", text))


def _results(text: str) -> dict[str, list[list[str]]]:
    """The rows of each, annotations among them."""
    found: dict[str, list[list[str]]] = {}
    block: list[list[str]] = []
    for row in [*csv.reader(io.StringIO(text, newline="")), []]:
        if row:
            block.append(row)
        elif block:
            found.setdefault(next((row[1] for row in block if row[0] == "#default"), ""), []).extend(block)
            block = []
    return found
