"""Every published route, asked once each, and the table of what they answer while something is away."""

import itertools
import json
import os
import uuid
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from heartguard.settings import ROOT

PATIENCE = 5.0
"""Seconds, the longest that any answer may take."""
REFUSED = 0
"""Instead of a status: nobody takes the connection."""
DOCUMENT = ROOT / "docs" / "absence.md"
WRITE = "HEARTGUARD_WRITE_ABSENCE"
PASSWORD = "Secret123!x"
CSV = b"time,bpm\n0,72\n"
LINES = {"Content-Type": "text/plain"}

ROUTES = [
    *(f"GET /gateway/{page}" for page in ("health", "ready", "metrics", "openapi.json", "docs")),
    *(
        f"{route['method']} {route['path']}"
        for route in json.loads((ROOT / "schemas" / "routes.json").read_bytes())["routes"]
    ),
]
Answers = Mapping[str, int]
"""The status by the route."""

_numbers = itertools.count()


class Client:
    """Of the gateway. Gives an answer up that takes longer than ``patience`` seconds."""

    def __init__(self, gateway: str, patience: float = PATIENCE) -> None:
        self._gateway = gateway
        self._pool = urllib3.PoolManager(maxsize=8, timeout=urllib3.Timeout(total=patience), retries=False)

    def ask(
        self, method: str, path: str, token: str = "", body: Any = None, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        given = {"Authorization": f"Bearer {token}"} if token else {}
        content = {"body": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        if "json" in content:
            given["Content-Type"] = "application/json"
        return self._pool.request(method, self._gateway + path, headers={**given, **(headers or {})}, **content)

    def made(self, method: str, path: str, token: str = "", body: Any = None) -> Any:
        answer = self.ask(method, path, token, body)
        assert answer.status in {200, 201}, (method, path, answer.status, answer.data)
        return answer.json()


@dataclass(frozen=True)
class Request:
    """``token`` is the admin's unless another's is given."""

    body: Any = None
    token: str | None = None
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None
    """Instead of the route's path."""


class Scene:
    """What the routes need to find, made while all is well; asking them all uses it up."""

    def __init__(self, client: Client, admin: str) -> None:
        self._client = client
        self._admin = admin
        self._number = next(_numbers)
        self._register("person")
        self._subject = self._register("subject")
        stays, leaves, _ = (
            client.made("POST", "/auth/login", body=self._account(name)) for name in ("person", "person", "subject")
        )
        self._stays, self._leaves = stays["access_token"], leaves
        sessions = client.made("GET", "/auth/sessions", self._stays)["sessions"]
        self._session = next(session["id"] for session in sessions if session["current"])
        self._item, self._doomed_item = self._upload(), self._upload()
        self._link = client.made("GET", f"/media/items/{self._item}/download", admin)["url"]
        self._bucket, self._doomed_bucket = self._new_bucket("kept"), self._new_bucket("doomed")

    def _account(self, name: str) -> dict[str, str]:
        return {"email": f"{name}-{self._number}@hg.io", "password": PASSWORD}

    def _register(self, name: str) -> Any:
        account = {**self._account(name), "role": "admin"}
        return self._client.made("POST", "/auth/register", self._admin, account)["user_id"]

    def _file(self) -> dict[str, str]:
        return {"file_name": "a.csv", "content_type": "text/csv", "data_base64": b64encode(CSV).decode()}

    def _upload(self) -> str:
        return str(self._client.made("POST", "/media/upload", self._admin, self._file())["id"])

    def _new_bucket(self, name: str) -> str:
        body = {"bucket": f"org_1_{name}_{self._number}"}
        return str(self._client.made("POST", "/timeseries/buckets", self._admin, body)["bucket"])

    def _requests(self) -> dict[str, Request]:
        """By the route; one that is not named is asked as it stands."""
        point = {"measurement": "absence", "fields": {"bpm": 72.0}}
        subject = {"id": self._subject}
        password = {"current_password": PASSWORD, "new_password": PASSWORD + "!"}
        return {
            "POST /auth/register": Request(self._account("new"), token=""),
            "POST /auth/login": Request(self._account("person"), token=""),
            "POST /auth/refresh": Request({"refresh_token": self._leaves["refresh_token"]}, token=""),
            "POST /auth/logout": Request(token=self._leaves["access_token"]),
            "PUT /auth/password": Request(password, token=self._stays),
            "DELETE /auth/sessions/{id}": Request(token=self._stays, path={"id": self._session}),
            "POST /auth/token/introspect": Request({"token": self._admin}),
            "PUT /organization": Request({"policies": "ISO27001"}, headers={"If-Match": "*"}),
            "PUT /users/me": Request({"preferences": {"lang": "es"}}),
            "GET /users/{id}": Request(path=subject),
            "PUT /users/{id}/role": Request({"role": "manager"}, path=subject),
            "DELETE /users/{id}": Request(path=subject),
            "POST /media/upload": Request(self._file()),
            "GET /media/items/{id}": Request(path={"id": self._item}),
            "GET /media/items/{id}/download": Request(path={"id": self._item}),
            "DELETE /media/items/{id}": Request(path={"id": self._doomed_item}),
            "GET /media/objects/{organization}/{owner}/{id}/{name}": Request(token="", target=self._object()),
            "POST /timeseries/write": Request({"bucket": self._bucket, "points": [point]}),
            "POST /timeseries/api/v2/write": Request(
                b"absence bpm=72", query=f"?bucket={self._bucket}&org=org_1&precision=ns", headers=LINES
            ),
            "POST /timeseries/query": Request({"bucket": self._bucket, "measurement": "absence"}),
            "POST /timeseries/buckets": Request({"bucket": f"org_1_new_{self._number}"}),
            "DELETE /timeseries/buckets/{bucket}": Request(path={"bucket": self._doomed_bucket}),
            "POST /audit/events": Request({"actor": "absence", "action": "REQUEST", "service": "gateway"}),
        }

    def _object(self) -> str:
        """Where the link leads; with Google Cloud Storage it leads there, and the service has no objects."""
        link = urlsplit(self._link)
        own = link.path.startswith("/media/objects/")
        return f"{link.path}?{link.query}" if own else f"/media/objects/org_1/user_1/{uuid.uuid4()}/none"

    def ask_all(self) -> dict[str, int]:
        """Each route's answer: of each service one after another, of all services at the same time."""
        requests = self._requests()
        assert requests.keys() <= set(ROUTES)

        def ask(routes: list[str]) -> dict[str, int]:
            return {route: self._ask(route, requests.get(route, Request())) for route in routes}

        services = [list(routes) for _, routes in itertools.groupby(ROUTES, lambda route: route.split("/")[1])]
        with ThreadPoolExecutor(len(services)) as threads:
            return {route: status for answers in threads.map(ask, services) for route, status in answers.items()}

    def _ask(self, route: str, request: Request) -> int:
        method, path = route.split(" ")
        target = (request.target or path.format(**request.path)) + request.query
        token = self._admin if request.token is None else request.token
        try:
            return self._client.ask(method, target, token, request.body, request.headers).status
        except urllib3.exceptions.NewConnectionError:
            return REFUSED
        except urllib3.exceptions.TimeoutError:
            raise AssertionError(f"{route} hangs") from None


def table(normal: Answers, absent: Mapping[str, Answers], services: set[str]) -> str:
    """In Markdown: a row for each route, a column for each dependency that is away."""
    rows = [["route", "all there", *absent], ["---"] * (2 + len(absent))]
    for route in ROUTES:
        cells = [_cell(name, answers[route], normal[route], services) for name, answers in absent.items()]
        rows.append([f"`{route}`", str(normal[route]), *cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(name: str, status: int, normal: int, services: set[str]) -> str:
    if status == REFUSED:
        return "none"
    if status == normal:
        return "·"
    if name in services and status in {502, 503}:  # which, is a question of how many have failed before it
        return "502/503"
    return str(status)


def compare(name: str, seen: str, document: Path = DOCUMENT) -> None:
    """Hold what was seen against the table ``name`` of the document, or rewrite it."""
    text = document.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = text.partition(begin)
    written, found, after = rest.partition(end)
    assert found, f"{document} has no place for the table {name}"
    if os.environ.get(WRITE):
        document.write_text(f"{before}{begin}{seen}{end}{after}", encoding="utf-8")
    elif seen != written:
        others = sorted(set(seen.splitlines()) - set(written.splitlines()))
        raise AssertionError("\n".join([f"Run again with {WRITE}=1, and judge the difference:", *others]))
