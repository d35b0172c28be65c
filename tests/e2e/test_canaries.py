"""What is secret or personal stays where it belongs: canaries planted through every route, in bodies, paths, query
strings and headers, are in no log, no event of the audit trail, no error and no metric.

What an answer shows to who may see it (``GET /users/me``) is no leak. ``HEARTGUARD_CANARIES=10000`` plants as many, and
those in headers besides.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
import urllib3
from lxml import etree
from typer.testing import CliRunner

from heartguard.cli.main import app
from heartguard.local.postgres import Postgres
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack
from heartguard.services import SERVICES
from heartguard.settings import ROOT

PLANTED = int(os.environ.get("HEARTGUARD_CANARIES", "500"))
PASSWORD = "correct horse battery staple"
JSON, XML = "application/json", "application/xml"
ROUTES = json.loads((ROOT / "schemas" / "routes.json").read_text())["routes"]
DOCUMENT = json.loads((ROOT / "schemas" / "openapi.json").read_text())
CANARY = re.compile(r"cnry[0-9a-f]{8}|198\.1[89]\.\d{1,3}\.\d{1,3}|2001:db8:[0-9a-f:]+", re.IGNORECASE)
"""The networks are those that RFC 2544 and RFC 3849 keep free: nobody has such an address."""
_numbers = count(1)


def mark() -> tuple[str, int]:
    number = next(_numbers)
    return f"cnry{number:08x}", number


def password() -> str:
    return f"Pw!{mark()[0]}x"


def email() -> str:
    return f"a.{mark()[0]}@canary.example"


def name() -> str:
    return f"Ana {mark()[0]}"


def token() -> str:
    return f"eyJhbGciOiJIUzI1NiJ9.eyJ{mark()[0]}.{mark()[0]}"


def ipv4() -> str:
    number = mark()[1]
    return f"198.{18 + (number >> 16 & 1)}.{number >> 8 & 255}.{number & 255}"


def ipv6() -> str:
    return f"2001:db8::{mark()[1] >> 16:x}:{mark()[1] & 0xFFFF:x}"


def text() -> str:
    return f"{name()}, {email()}, from {ipv4()} ({ipv6()}) with {token()}"


Kind = Callable[[], str]
BY_FORM: list[Kind] = [email, token, ipv4, ipv6]
"""What is recognized wherever it stands; a name or a password is not, where a field is called ``action``."""
ANY: list[Kind] = [*BY_FORM, name, password, text]


def kinds(place: str) -> list[Kind]:
    """What somebody could put into a property of that name."""
    if "password" in place:
        return [password]
    if "token" in place:
        return [token]
    if "name" in place:
        return [name, text]
    return [email] if "email" in place else BY_FORM


@dataclass
class Planter:
    """Sends what it is told with canaries in every header, and remembers the errors."""

    stack: Stack
    http: urllib3.PoolManager
    admin: str
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    leaks: list[object] = field(default_factory=list)

    def send(self, route: dict[str, Any], path: str, body: bytes | None, sent: str, asked: str, known: bool) -> None:
        headers = {
            "Accept": asked,
            "User-Agent": f"{name()} {email()}",
            "Referer": f"https://{mark()[0]}.example/?token={token()}",
            "Origin": f"https://{mark()[0]}.example",
            "Cookie": f"device={token()}; session={password()}",
            "X-Forwarded-For": ipv4(),
            "Forwarded": f'for="[{ipv6()}]"',
            "X-User-Email": email(),
            "If-None-Match": f'"{mark()[0]}"',
        }
        if body is None:
            headers["If-Match"] = f'"{mark()[0]}"'
        else:
            headers["Content-Type"] = sent
        spends = route["path"] == "/auth/logout"
        headers["Authorization"] = f"Bearer {self.admin if known and not spends else token()}"
        url = f"{self.stack.gateway}{path}"
        answer = self.http.request(route["method"], url, headers=headers, body=body)
        self.statuses[f"{route['method']} {route['path']}", answer.status] += 1
        said = repr(answer.headers) + (answer.data.decode(errors="replace") if answer.status >= 400 else "")
        if CANARY.search(said):
            self.leaks.append((route["method"], path, answer.status, body, said))


@pytest.fixture(scope="module")
def planter(stack_settings: dict[str, str]) -> Iterator[Planter]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORG_SIGNUP", "true")
        patch.setenv("LOG_LEVEL", "DEBUG")
        started = CliRunner().invoke(app, ["up"], prog_name="heartguard")
    assert started.exit_code == 0, started.output
    again_where_closed = urllib3.Retry(1, allowed_methods=None, status=0, redirect=False, raise_on_status=False)
    again_where_closed.respect_retry_after_header = False
    with urllib3.PoolManager(timeout=30, retries=again_where_closed) as http:
        stack = Stack()
        login = {"email": "boss@hg.io", "password": PASSWORD}
        answer = http.request("POST", f"{stack.gateway}/auth/login", json=login)
        yield Planter(stack, http, answer.json()["access_token"])


# Where they are planted


def bodies(route: dict[str, Any]) -> Iterator[tuple[bytes, str]]:
    """The document's examples, in each with a canary in one place; and what a form and line protocol could hold."""
    content = DOCUMENT["paths"][route["path"]][route["method"].lower()].get("requestBody", {}).get("content", {})
    for sent, of in content.items():
        for example in of.get("examples", {}).values():
            if sent == JSON:
                yield from ((body, JSON) for body in in_json(example["value"]))
            elif sent == XML:
                yield from ((body, XML) for body in in_xml(example["value"]))
    if "text/plain" in content:
        for line in (f"m,via={mark()[0]} f=1", f'm f="{mark()[0]}', f"m,user_id={quote(email())} f=1", text()):
            yield line.encode(), "text/plain"
    if "multipart/form-data" in content:
        for type_ in ("text/csv", "image/png", mark()[0] + "/x"):
            yield urllib3.encode_multipart_formdata({"file": (f"{name()}.csv", text().encode(), type_)})
    if route["path"] == "/audit/events":
        payload = {kind.__name__: kind() for kind in (password, token, email, text)}
        payload |= {"first_name": name(), "user": {"phone": mark()[0], "address": mark()[0]}["phone"]}
        payload |= {"user": text().partition(",")[2], "ip": ipv4(), "client_ip": ipv6()}
        event = {"actor": email(), "action": "LOGIN", "service": "auth", "payload": payload}
        yield json.dumps(event).encode(), JSON


def in_json(value: Any) -> Iterator[bytes]:
    for place in leaves(value):
        for kind in kinds(named(place)):
            copy = json.loads(json.dumps(value))
            inner = copy
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = kind()
            yield json.dumps(copy).encode()


def leaves(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield above
    else:
        for key, inner in inside:
            yield from leaves(inner, (*above, key))


def named(place: tuple[Any, ...]) -> str:
    return next(key for key in reversed(place) if isinstance(key, str))


def in_xml(example: str) -> Iterator[bytes]:
    for number, leaf in enumerate(etree.fromstring(example).iter()):
        if len(leaf) == 0:
            for kind in kinds(str(leaf.tag)):
                root = etree.fromstring(example)
                list(root.iter())[number].text = kind()
                yield etree.tostring(root)


def paths(route: dict[str, Any]) -> Iterator[str]:
    """The route's path with canaries in its parameters and in a query string."""
    parameters = DOCUMENT["paths"][route["path"]][route["method"].lower()].get("parameters", [])
    queries = [one["name"] for one in parameters if one.get("in") == "query"]
    for kind in ANY:
        path = re.sub(r"\{\w+\}", lambda _, kind=kind: quote(kind(), safe=""), route["path"])
        for query in ["q", *queries]:
            yield f"{path}?{urlencode({query: kind()})}"


def plan() -> Iterator[tuple[dict[str, Any], str, bytes | None, str]]:
    """One request after another, of each route in turn, for ever."""
    turns = [cycle_of(route) for route in ROUTES]
    for turn in cycle(turns):
        yield next(turn)


def cycle_of(route: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, bytes | None, str]]:
    while True:
        for path in paths(route):
            yield route, path, None, JSON
            for body, sent in bodies(route):
                fixed = re.sub(r"\{\w+\}", "1", route["path"])
                yield route, fixed, body, sent


def test_no_canary_sings(planter: Planter) -> None:
    asked = cycle([JSON, XML])
    known = cycle([True, True, False])
    for route, path, body, sent in plan():
        planter.send(route, path, body, sent, next(asked), next(known))
        if planter.statuses.total() >= PLANTED:
            break
    print(f"{planter.statuses.total()} requests with {next(_numbers)} canaries: {sorted(planter.statuses.items())}")
    for leak in planter.leaks:
        print(leak)
    assert set(accepted(planter)) > {"PUT /users/me", "PUT /organization", "POST /timeseries/write"}, "none got far"
    assert not planter.leaks, (len(planter.leaks), planter.leaks[:3])
    check_metrics(planter)
    check_trail(planter)
    check_logs(planter)


def accepted(planter: Planter) -> dict[str, int]:
    """How often each route took what it was sent."""
    return {route: times for (route, status), times in planter.statuses.items() if status < 300}


def check_metrics(planter: Planter) -> None:
    for service in SERVICES.values():
        headers = {"Authorization": f"Bearer {planter.admin}"}
        answer = planter.http.request("GET", f"{planter.stack.gateway}{service.path}/metrics", headers=headers)
        assert answer.status == 200
        assert b"heartguard_" in answer.data
        assert not found_in(answer.data.decode())


def check_trail(planter: Planter) -> None:
    """Every chain, that of the platform too, once all events have arrived."""
    requests = planter.statuses.total()
    url = Postgres(planter.stack.layout.root / "postgres", planter.stack.layout.secrets).superuser_url
    with psycopg.connect(url, autocommit=True) as connection:

        def events() -> list[str]:
            found = connection.execute("SELECT row_to_json(e)::text FROM heartguard_core.audit_events e").fetchall()
            return [str(row[0]) for row in found]

        wait_until(lambda: len(events()) > requests / 3, "The events did not arrive", 60)
        assert not found_in("\n".join(events()))


def check_logs(planter: Planter) -> None:
    logs = list(planter.stack.layout.logs.iterdir())
    assert {f"{name}.log" for name in SERVICES} <= {log.name for log in logs}
    leaks = {log.name: found_in(log.read_text(errors="replace")) for log in logs}
    assert not any(leaks.values()), leaks


def found_in(text: str) -> list[str]:
    """The lines that have a canary, the first few of them."""
    return [line[:600] for line in text.splitlines() if CANARY.search(line)][:5]
