"""Who may do what, through the real gateway and services: every route, by every role, in both formats, for the own
organization's things and another's; then at random.

``HEARTGUARD_PROBES=100000`` probes longer than the suite does.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, product
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import urllib3
from typer.testing import CliRunner

from heartguard import xml
from heartguard.cli.main import app
from heartguard.local.readiness import is_ready
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack
from heartguard.schema import domains
from heartguard.schema.json_schema import types_of
from heartguard.services import SERVICES
from heartguard.settings import ROOT
from heartguard.tokens import Claims, KeyRing, Tokens

PROBES = int(os.environ.get("HEARTGUARD_PROBES", "300"))
PASSWORD = "correct horse battery staple"
ROUTES = json.loads((ROOT / "schemas" / "routes.json").read_text())["routes"]
TYPES = {type_.__name__: type_ for domain in domains() for type_ in types_of(domain)}
ROLES = ("none", "user", "manager", "admin", "service")
MAY = {
    "P": set(ROLES),
    "A": {"user", "manager", "admin"},
    "M": {"manager", "admin"},
    "X": {"admin"},
    "S": {"service", "admin"},
    "I": {"admin"},
}
"""The letters of the contract, read here once more: not from the code that is tested."""

AGAIN_WHERE_CLOSED = urllib3.Retry(
    1, allowed_methods=None, status=0, redirect=False, respect_retry_after_header=False, raise_on_status=False
)
"""A kept connection may be closed in the very instant that a request is sent: then it is sent again, as clients do."""

FILE = {"file_name": "a.csv", "content_type": "text/csv", "data_base64": "YSxiCg=="}
_numbers = count(1)


@dataclass
class Person:
    """Somebody signed in."""

    email: str
    password: str
    id: int
    org_id: int
    token: str
    refresh_token: str
    claims: Claims


@dataclass
class Scene:
    """The stack, and two organizations with somebody of each role."""

    gateway: str
    tokens: Tokens
    http: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(maxsize=8, retries=AGAIN_WHERE_CLOSED, timeout=30)
    )
    people: dict[tuple[str, str], Person] = field(default_factory=dict)

    def send(
        self, method: str, path: str, token: str | None = None, body: Any = None, fmt: str = "json", gateway: str = ""
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": f"application/{fmt}"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if isinstance(body, msgspec.Struct):
            headers["Content-Type"] = f"application/{fmt}"
            body = xml.dumps(body) if fmt == "xml" else msgspec.json.encode(body)
        return self.http.request(method, (gateway or self.gateway) + path, headers=headers, body=body)

    def call(self, method: str, path: str, token: str | None = None, **properties: Any) -> Any:
        body = json.dumps(properties).encode() if properties else None
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        answer = self.http.request(method, self.gateway + path, body=body, headers=headers)
        assert answer.status < 300, (method, path, answer.status, answer.data)
        return answer.json() if answer.data else None

    def person(self, role: str, org: str, **names: str) -> Person:
        """A new one of that role in the organization, which the first admin signs up."""
        email = f"{org}{next(_numbers)}@{org}.example"
        if (org, "admin") not in self.people:
            made = self.call(
                "POST",
                "/auth/register",
                email=email,
                password=PASSWORD,
                role="admin",
                organization_name=f"{org} clinic",
            )
        else:
            by = self.people[org, "admin"].token
            made = self.call("POST", "/auth/register", by, email=email, password=PASSWORD, role=role, **names)
        return self.signed_in(email, made["user_id"], made["org_id"])

    def signed_in(self, email: str, id_: int, org_id: int, password: str = PASSWORD) -> Person:
        pair = self.call("POST", "/auth/login", email=email, password=password)
        access, refresh = pair["access_token"], pair["refresh_token"]
        return Person(email, password, id_, org_id, access, refresh, self.tokens.verify(access))

    def again(self, person: Person) -> Person:
        return self.signed_in(person.email, person.id, person.org_id, person.password)

    def token(self, role: str) -> str | None:
        if role == "none":
            return None
        return self.tokens.service_token(600) if role == "service" else self.people["own", role].token


@pytest.fixture(scope="module")
def scene(stack_settings: dict[str, str]) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORG_SIGNUP", "true")
        started = CliRunner().invoke(app, ["up"], prog_name="heartguard")
        assert started.exit_code == 0, started.output
        scene = Scene(Stack().gateway, Tokens(KeyRing.from_secret(stack_settings["JWT_SECRET"].encode())))
        for org, role in product(("own", "other"), ("admin", "manager", "user")):
            scene.people[org, role] = scene.person(
                role, org, **({} if role == "admin" else {"first_name": f"{org}name"})
            )
        for org in ("own", "other"):
            admin = scene.people[org, "admin"]
            scene.call("PUT", "/organization", admin.token, policies=f"{org}policy")
            scene.call("PUT", "/users/me", admin.token, preferences={"secret": f"{org}secret"})
            scene.call(
                "POST", "/timeseries/write", admin.token, points=[{"measurement": f"{org}pulse", "fields": {"bpm": 72}}]
            )
        yield scene
        scene.http.clear()


# What is asked


def bodies(scene: Scene, person: Person | None) -> dict[str, Callable[[], dict[str, Any]]]:
    """Good bodies, by route. A route that is not here is sent an empty one."""
    number = next(_numbers)
    refresh = person.refresh_token if person else scene.again(scene.people["own", "user"]).refresh_token
    bucket = f"org_{scene.people['own', 'admin'].org_id}_b{number}"
    return {
        "POST /auth/register": lambda: {"email": f"new{number}@own.example", "password": PASSWORD},
        "POST /auth/login": lambda: {"email": scene.people["own", "user"].email, "password": PASSWORD},
        "POST /auth/refresh": lambda: {"refresh_token": refresh},
        "PUT /auth/password": lambda: {"current_password": PASSWORD, "new_password": PASSWORD + "!"},
        "POST /auth/token/introspect": lambda: {"token": "none"},
        "PUT /organization": lambda: {"name": "own clinic"},
        "PUT /users/me": lambda: {"first_name": "Ana"},
        "PUT /users/{id}/role": lambda: {"role": "manager"},
        "POST /media/upload": lambda: FILE,
        "POST /timeseries/write": lambda: {"points": [{"measurement": "m", "fields": {"f": 1.0}}]},
        "POST /timeseries/query": lambda: {"measurement": "m"},
        "POST /timeseries/buckets": lambda: {"bucket": bucket},
    }


SPENT = {"POST /auth/logout", "PUT /auth/password", "DELETE /auth/sessions/{id}", "POST /auth/refresh"}
"""Routes that use up the caller's session or password: they are called by somebody new."""


def resource(scene: Scene, route: str, org: str, person: Person | None) -> str:
    """What stands in the path: a thing of that organization, made for the purpose where it will be gone."""
    admin = scene.people[org, "admin"]
    if route.startswith("DELETE /auth/sessions/"):
        return (person if person and org == "own" else scene.again(scene.people[org, "user"])).claims.sid
    if route.startswith(("DELETE /users/", "PUT /users/")):
        return str(scene.person("user", org).id)
    if route.startswith("GET /users/"):
        return str(scene.people[org, "user"].id)
    if "/media/items/" in route:
        return str(scene.call("POST", "/media/upload", scene.people[org, "user"].token, **FILE)["id"])
    if route.startswith("DELETE /timeseries/buckets/"):
        bucket = f"org_{admin.org_id}_d{next(_numbers)}"
        scene.call("POST", "/timeseries/buckets", admin.token, bucket=bucket)
        return bucket
    return str(uuid4())


def expected(route: dict[str, Any], role: str, org: str) -> set[int]:
    """The statuses that the contract allows."""
    named = f"{route['method']} {route['path']}"
    if role not in MAY[route["audience"]]:
        return {401 if role == "none" else 403}
    if named == "POST /auth/register" and role not in {"none", "admin"}:
        return {403}
    if route["path"].startswith("/media/objects/"):
        return {403}  # nobody has a link to what was made up
    if "{" in route["path"] and (org == "other" or not known(named)):
        return {404}
    return (
        {200, 201, 204}
        if route["request"] is None or named in bodies_known()
        else set(range(200, 500)) - {401, 403, 404}
    )


def known(named: str) -> bool:
    """Whether :func:`resource` knows such things."""
    return named.partition(" ")[2].startswith(("/auth/sessions/", "/users/", "/media/items/", "/timeseries/buckets/"))


def bodies_known() -> set[str]:
    return {
        "POST /auth/register", "POST /auth/login", "POST /auth/refresh", "PUT /auth/password",
        "POST /auth/token/introspect", "PUT /organization", "PUT /users/me", "PUT /users/{id}/role",
        "POST /media/upload", "POST /timeseries/write", "POST /timeseries/query", "POST /timeseries/buckets",
    }  # fmt: skip


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route['method']} {route['path']}")
def test_every_cell(scene: Scene, route: dict[str, Any]) -> None:
    named = f"{route['method']} {route['path']}"
    orgs = ("own", "other") if "{" in route["path"] else ("own",)
    for role, fmt, org in product(ROLES, ("json", "xml"), orgs):
        allowed = role in MAY[route["audience"]]
        fresh = (
            scene.person(role, "own") if named in SPENT and allowed and role in {"user", "manager", "admin"} else None
        )
        token = fresh.token if fresh else scene.token(role)
        path = route["path"]
        if "{" in path:
            thing = resource(scene, named, org, fresh) if allowed else "1"
            path = "/".join(thing if part.startswith("{") else part for part in path.split("/"))
        body = None
        if route["request"]:
            make = bodies(scene, fresh).get(named, dict) if allowed else dict
            try:
                body = msgspec.convert(make(), TYPES[route["request"]])
            except msgspec.ValidationError:
                body = b"{}"
        answer = scene.send(route["method"], path, token, body, fmt)
        assert answer.status in expected(route, role, org), (role, fmt, org, answer.status, answer.data[:300])
        if answer.status >= 400:
            assert answer.headers["Content-Type"] == f"application/{fmt}"
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("role", ["user", "manager", "admin"])
def test_another_organizations_bucket(scene: Scene, role: str) -> None:
    token, bucket = scene.token(role), f"org_{scene.people['other', 'admin'].org_id}"
    write = TYPES["WriteRequest"](bucket=bucket, points=[TYPES["Point"](measurement="m", fields={"f": 1.0})])
    query = TYPES["QueryRequest"](bucket=bucket, measurement="otherpulse")
    for fmt in ("json", "xml"):
        assert scene.send("POST", "/timeseries/write", token, write, fmt).status == 403
        assert scene.send("POST", "/timeseries/query", token, query, fmt).status == 404


# At random


def test_no_probe_reads_another_organization(scene: Scene) -> None:
    """Ids of the other organization and made-up ones, at random routes and roles. Nobody who may be told is asked to
    tell: whatever of the other's comes back is a leak."""
    others = [person for (org, _), person in scene.people.items() if org == "other"]
    canaries = [b"otherpolicy", b"othersecret", b"other clinic", b"othername", b"other.example", b'otherpulse",']
    before = snapshot(scene)
    rng = random.Random(20260101)
    for _ in range(PROBES):
        victim = rng.choice(others)
        route = rng.choice([route for route in ROUTES if route["path"] not in {"/auth/logout", "/auth/register"}])
        things = [
            str(victim.id),
            victim.claims.sid,
            f"org_{victim.org_id}",
            str(rng.randrange(1, 50)),
            "me",
            str(uuid4()),
        ]
        path = "/".join(rng.choice(things) if part.startswith("{") else part for part in route["path"].split("/"))
        if path.startswith("/users/me") and route["method"] == "DELETE":
            continue
        body = None
        if route["request"]:
            body = json.dumps(guessed(rng, route["path"], victim)).encode()
        role = rng.choice(["user", "manager", "admin"])
        own = {str(person.id) for (org, _), person in scene.people.items() if org == "own"}
        if own & set(path.split("/")) and route["method"] != "GET":
            continue
        headers = {
            "Authorization": f"Bearer {scene.token(role)}",
            "Accept": rng.choice(["application/json", "application/xml"]),
            "Content-Type": "application/json",
        }
        answer = scene.http.request(route["method"], scene.gateway + path, headers=headers, body=body)
        assert answer.status < 500, (route, path, answer.data)
        found = [canary for canary in canaries if canary in answer.data]
        assert not found, (role, route["method"], path, body, answer.data)
    assert snapshot(scene) == before


def guessed(rng: random.Random, path: str, victim: Person) -> dict[str, Any]:
    """Bodies that name what is the victim's."""
    bucket = f"org_{victim.org_id}"
    return {
        "/timeseries/query": {"measurement": "otherpulse", "bucket": bucket, "tags": {"user_id": str(victim.id)}},
        "/timeseries/write": {"bucket": bucket, "points": [{"measurement": "otherpulse", "fields": {"bpm": 1}}]},
        "/timeseries/buckets": {"bucket": f"{bucket}_mine"},
        "/auth/login": {"email": victim.email, "password": "not the password"},
        "/auth/refresh": {"refresh_token": "none"},
        "/auth/token/introspect": {"token": victim.token},
        "/users/{id}/role": {"role": rng.choice(["user", "manager"])},
    }.get(path, {"org_id": victim.org_id, "user_id": victim.id, "name": "x"})


def snapshot(scene: Scene) -> list[Any]:
    """What the other organization says of itself."""
    admin = scene.people["other", "admin"]
    return [
        scene.call("GET", path, admin.token)
        for path in ("/organization", "/users?limit=200", "/timeseries/buckets", "/users/me")
    ]


# Old tokens


@pytest.fixture(scope="module")
def gateways(scene: Scene, free_port: Callable[[], int]) -> Iterator[list[str]]:
    """Two of them."""
    port = free_port()
    command = [sys.executable, "-m", "heartguard.cli.main", "run", "gateway", "--port", str(port)]
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_ready(SERVICES["gateway"], port), "The second gateway was not ready", 60)
        yield [scene.gateway, f"http://127.0.0.1:{port}"]
    finally:
        second.terminate()
        second.wait(20)


@pytest.mark.parametrize("how", ["demoted", "deleted", "password changed"])
def test_old_tokens_are_refused_at_every_gateway_at_once(scene: Scene, gateways: list[str], how: str) -> None:
    person = scene.person("manager", "own")
    sessions = [person, scene.again(person), scene.again(person)]
    for session, gateway in product(sessions, gateways):
        assert scene.send("GET", "/users/me", session.token, gateway=gateway).status == 200
    admin = scene.people["own", "admin"].token
    kept: list[Person] = []
    if how == "demoted":
        assert scene.call("PUT", f"/users/{person.id}/role", admin, role="user")["role"] == "user"
    elif how == "deleted":
        scene.call("DELETE", f"/users/{person.id}", admin)
    else:
        kept = [sessions.pop()]
        scene.call(
            "PUT", "/auth/password", kept[0].token, current_password=PASSWORD, new_password="another good password"
        )
    for session, gateway in product(sessions, gateways):
        assert scene.send("GET", "/users/me", session.token, gateway=gateway).status == 401
        refresh = TYPES["RefreshRequest"](refresh_token=session.refresh_token)
        assert scene.send("POST", "/auth/refresh", body=refresh, gateway=gateway).status == 401
    for session, gateway in product(kept, gateways):
        assert scene.send("GET", "/users/me", session.token, gateway=gateway).status == 200
    login = TYPES["LoginRequest"](email=person.email, password=PASSWORD)
    assert scene.send("POST", "/auth/login", body=login).status == (200 if how == "demoted" else 401)


def test_a_deleted_users_address_is_free_and_the_new_role_is_in_the_next_token(scene: Scene) -> None:
    admin = scene.people["own", "admin"].token
    person = scene.person("user", "own")
    scene.call("PUT", f"/users/{person.id}/role", admin, role="manager")
    assert scene.again(person).claims.role == "manager"
    scene.call("DELETE", f"/users/{person.id}", admin)
    again = scene.call("POST", "/auth/register", admin, email=person.email, password=PASSWORD)
    assert again["user_id"] != person.id
    assert scene.again(person).claims.user_id == again["user_id"]


def test_the_demo_plays_in_an_organization_of_its_own(scene: Scene) -> None:
    played = CliRunner().invoke(app, ["demo"], prog_name="heartguard", env={"COLUMNS": "200"})
    assert played.exit_code == 0, played.output
    for words in ("demo-admin-", "The chain is whole", "Deleted the 4 people"):
        assert words in played.output
    others = scene.call("GET", "/audit/events?limit=200", scene.people["own", "admin"].token)["items"]
    assert others
    assert not [event for event in others if event.get("request_id", "").startswith("demo-")]
