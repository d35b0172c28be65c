"""The auth service in this process, on real stores, spoken to in both formats."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from lxml import etree
from redis import Redis
from sqlalchemy import text

from heartguard import audit
from heartguard.audit.event import decode
from heartguard.audit.stream import FIELD, STREAM
from heartguard.database import Database
from heartguard.errors import Unavailable
from heartguard.ratelimit import RateLimiter
from heartguard.settings import load
from heartguard.tokens import Tokens
from heartguard.valkey import FastValkey
from services.auth.src.accounts import Accounts
from services.auth.src.app import create_app
from services.auth.src.attempts import Attempts
from services.auth.src.housekeeping import Housekeeping
from services.auth.src.settings import Settings

from ..callers import SECRET, TOKENS
from ..waiting import wait_until

ADMIN = {"email": "admin@heartguard.io", "password": "the first admin's password"}
PASSWORD = "Secret123!x"


def environment(database_url: str, valkey_url: str, spool: Path, **overrides: str) -> dict[str, str]:
    return {
        "AUDIT_SPOOL": str(spool),
        "JWT_SECRET": SECRET,
        "DATABASE_URL": database_url,
        "REDIS_URL": valkey_url,
        "BOOTSTRAP_ADMIN_PASSWORD": ADMIN["password"],
        "AUTH_RATE_LIMIT": "1000/s",
        **overrides,
    }


@contextmanager
def running(environ: dict[str, str], *, set_up: bool = True) -> Iterator[Flask]:
    """The service, set up if it can be; its thread and connections are gone afterwards."""
    app = create_app(load(Settings, environ))
    housekeeping: Housekeeping = app.extensions["heartguard.housekeeping"]
    try:
        wait_until(lambda: _is_set_up(housekeeping) == set_up)
        yield app
    finally:
        housekeeping.stop()
        app.extensions["heartguard.audit"].stop()
        housekeeping._database.close()
        housekeeping._revocations._valkey.close()
        housekeeping._accounts._attempts._limiter._valkey.close()


def _is_set_up(housekeeping: Housekeeping) -> bool:
    try:
        housekeeping.check_set_up()
    except Unavailable:
        return False
    return True


@pytest.fixture
def database(superuser: Any) -> Any:
    """The database, with no account in it; whoever looks through this sees and may do everything."""
    with superuser.transaction() as tx:
        tx.execute(
            text(
                "TRUNCATE heartguard_core.organizations, heartguard_core.users, heartguard_core.sessions,"
                " heartguard_core.refresh_tokens, heartguard_core.revoked_tokens, heartguard_core.audit_outbox"
                " RESTART IDENTITY CASCADE"
            )
        )
    return superuser


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[Redis]:
    """Valkey, empty."""
    with Redis.from_url(valkey_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def environ(
    url_for: Callable[[str], str], valkey_url: str, database: Any, valkey: Redis, tmp_path: Path
) -> dict[str, str]:
    return environment(url_for("auth"), valkey_url, tmp_path / "spool")


@pytest.fixture
def app(environ: dict[str, str]) -> Iterator[Flask]:
    with running(environ) as app:
        yield app


@pytest.fixture
def run_service(environ: dict[str, str]) -> Callable[..., AbstractContextManager[Flask]]:
    """Runs the service with other settings: ``with run_service(REGISTRATION="closed") as app``."""
    return lambda set_up=True, **overrides: running({**environ, **overrides}, set_up=set_up)


@pytest.fixture
def speak() -> Callable[..., "Api"]:
    """Gives an :class:`Api` of a service: ``speak(app)``, ``speak(app, "xml")`` or ``speak(app, cookies=True)``."""
    return lambda app, fmt="json", cookies=False: Api(app, fmt, cookies=cookies)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until a condition holds; fails where it does not within 10 seconds."""
    return wait_until


@pytest.fixture
def accounts(environ: dict[str, str]) -> Iterator[Callable[..., Accounts]]:
    """Makes accounts' domain object with other settings, without a service round it."""
    fast = FastValkey(environ["REDIS_URL"])
    database = Database(environ["DATABASE_URL"], service="tests")

    def make(**overrides: str) -> Accounts:
        settings = load(Settings, {**environ, **overrides})
        attempts = Attempts(RateLimiter(fast), settings.auth_rate_limit, settings.jwt_secret)
        return Accounts(database, attempts, settings)

    yield make
    fast.close()
    database.close()


class Audited(Sequence[tuple[str, str, str]]):
    """Action, actor and outcome of the events that were sent or committed, in the order in which they happened."""

    def __init__(self, superuser: Any, valkey: Redis) -> None:
        self._superuser = superuser
        self._valkey = valkey

    @property
    def events(self) -> list[audit.Event]:
        with self._superuser.transaction() as tx:
            committed = list(tx.execute(text("SELECT event FROM heartguard_core.audit_outbox")).scalars())
        sent = [fields[FIELD] for _, fields in self._valkey.xrange(STREAM)]
        return sorted(map(decode, [*committed, *sent]), key=lambda event: event.occurred_at)

    def __getitem__(self, index: Any) -> Any:
        return [(event.action, event.actor, event.outcome) for event in self.events][index]

    def __len__(self) -> int:
        return len(self.events)

    def __eq__(self, other: object) -> bool:
        return list(self) == other


@pytest.fixture
def audited(superuser: Any, valkey: Redis) -> Audited:
    return Audited(superuser, valkey)


@pytest.fixture
def tokens() -> Tokens:
    return TOKENS


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """The error's code."""
        return str((self.body.get("error") or self.body)["code"])

    @property
    def paths(self) -> list[str]:
        """Where the error says the violations are."""
        return [detail["path"] for detail in (self.body.get("error") or self.body)["details"]]


class Api:
    """Speaks to the service in one format; without ``cookies`` every sign-in is from a new device."""

    def __init__(self, app: Flask, fmt: str, *, cookies: bool = False) -> None:
        self._client = app.test_client(use_cookies=cookies)
        self._media_type = f"application/{fmt}"
        self._xml = fmt == "xml"

    def post(
        self, path: str, root: str, token: str | None = None, /, method: str = "POST", **properties: Any
    ) -> Answer:
        body = _to_xml(root, properties) if self._xml else None
        return self._send(method, path, token, body, None if self._xml else properties)

    def get(self, path: str, token: str | None = None) -> Answer:
        return self._send("GET", path, token)

    def logout(self, token: str) -> Answer:
        return self._send("POST", "/auth/logout", token)

    def register(self, token: str | None = None, /, **properties: Any) -> Answer:
        return self.post("/auth/register", "RegisterRequest", token, **{"password": PASSWORD, **properties})

    def login(self, email: str, password: str = PASSWORD) -> Answer:
        return self.post("/auth/login", "LoginRequest", email=email, password=password)

    def signed_in(self, email: str, password: str = PASSWORD) -> dict[str, str]:
        answer = self.login(email, password)
        assert answer.status == 200, answer
        return dict(answer.body)

    def admin(self) -> str:
        """An access token of the first admin."""
        return self.signed_in(**ADMIN)["access_token"]

    def change_password(self, token: str, current: str, new: str) -> Answer:
        return self.post(
            "/auth/password", "PasswordChange", token, method="PUT", current_password=current, new_password=new
        )

    def delete(self, path: str, token: str) -> Answer:
        return self._send("DELETE", path, token)

    def refresh(self, refresh_token: str) -> Answer:
        return self.post("/auth/refresh", "RefreshRequest", refresh_token=refresh_token)

    def introspect(self, token: str, by: str) -> Answer:
        return self.post("/auth/token/introspect", "IntrospectRequest", by, token=token)

    def _send(self, method: str, path: str, token: str | None, body: Any = None, json: Any = None) -> Answer:
        headers = {"Accept": self._media_type, "User-Agent": "a device", "X-Forwarded-For": "192.0.2.7"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        content_type = self._media_type if body or json is not None else None
        response = self._client.open(
            path, method=method, headers=headers, data=body, json=json, content_type=content_type
        )
        if response.data:
            assert response.content_type == self._media_type
        parsed = None
        if response.data:
            parsed = _from_xml(etree.fromstring(response.data)) if self._xml else response.json
        return Answer(response.status_code, parsed, dict(response.headers))


def _to_xml(root: str, properties: dict[str, Any]) -> bytes:
    element = etree.Element(root)
    for name, value in properties.items():
        etree.SubElement(element, name).text = str(value)
    return etree.tostring(element)


def _from_xml(element: etree._Element) -> Any:
    """Lists hold elements of the same name, the singular of their own."""
    children = list(element)
    if not children:
        written = element.text or ""
        return {"true": True, "false": False}.get(written, int(written) if written.isdecimal() else written)
    if str(element.tag).endswith("s") and {str(child.tag) + "s" for child in children} == {str(element.tag)}:
        return [_from_xml(child) for child in children]
    return {str(child.tag): _from_xml(child) for child in children}


@pytest.fixture(params=["json", "xml"])
def api(request: pytest.FixtureRequest, app: Flask) -> Api:
    return Api(app, request.param)


@pytest.fixture
def json_api(app: Flask) -> Api:
    """Where the format is not what is tested."""
    return Api(app, "json")
