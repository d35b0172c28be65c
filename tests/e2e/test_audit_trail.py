"""The audit trail as an admin reads it: every action that the contract names, and none lost while nobody records.

``HEARTGUARD_STOPPED=600`` keeps the audit service stopped for so many seconds.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from typing import Any

import pytest
import urllib3
from typer.testing import CliRunner

from heartguard.cli.main import app
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack

PASSWORD = "correct horse battery staple"
STOPPED = float(os.environ.get("HEARTGUARD_STOPPED", "5"))
CLIENTS = 4
FILE = {"file_name": "a.csv", "content_type": "text/csv", "data_base64": "YSxiCg=="}
Answer = urllib3.BaseHTTPResponse


@dataclass
class Office:
    """An admin of the first organization, who does things and looks for them in the trail."""

    stack: Stack
    http: urllib3.PoolManager
    token: str = ""
    _numbers: Iterator[int] = field(default_factory=count)

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None, request_id: str = "") -> Answer:
        token = self.token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if request_id:
            headers["X-Request-ID"] = request_id
        return self.http.request(method, self.stack.gateway + path, json=body, headers=headers)

    def sign_in(self, email: str, password: str = PASSWORD) -> dict[str, Any]:
        answer = self.ask("POST", "/auth/login", {"email": email, "password": password}, "")
        assert answer.status == 200, answer.data
        return dict(answer.json())

    def person(self, role: str = "user") -> tuple[int, str]:
        email = f"person{next(self._numbers)}@hg.io"
        made = self.ask("POST", "/auth/register", {"email": email, "password": PASSWORD, "role": role})
        assert made.status == 201, made.data
        return int(made.json()["user_id"]), email

    def events(self, **filters: str) -> list[dict[str, Any]]:
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        answer = self.ask("GET", f"/audit/events?limit=200&{query}")
        assert answer.status == 200, answer.data
        return list(answer.json()["items"])

    def find(self, request_id: str, **filters: str) -> dict[str, Any]:
        """The one event of the request that the filters let through."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [event for event in self.events(**filters) if event.get("request_id") == request_id]
            return bool(found)

        wait_until(look, f"{filters} of {request_id} is not in the trail", 20)
        (event,) = found
        return event


@pytest.fixture(scope="module")
def office(stack_settings: dict[str, str]) -> Iterator[Office]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFRESH_GRACE_SECONDS", "0")
        started = CliRunner().invoke(app, ["up"], prog_name="heartguard")
    assert started.exit_code == 0, started.output
    with urllib3.PoolManager(maxsize=CLIENTS + 1, timeout=30, retries=False) as http:
        office = Office(Stack(), http)
        office.token = office.sign_in("boss@hg.io")["access_token"]
        yield office


# Each action: what is done under the request id given, the status it gets, and who acts.

Done = tuple[Answer, str]
Do = Callable[[Office, str], Done]


def register(office: Office, id_: str) -> Done:
    body = {"email": f"{id_}@hg.io", "password": PASSWORD}
    return office.ask("POST", "/auth/register", body, request_id=id_), "1"


def login(office: Office, id_: str) -> Done:
    user, email = office.person()
    return office.ask("POST", "/auth/login", {"email": email, "password": PASSWORD}, "", id_), str(user)


def login_failed(office: Office, id_: str) -> Done:
    user, email = office.person()
    return office.ask("POST", "/auth/login", {"email": email, "password": "wrong"}, "", id_), str(user)


def login_locked(office: Office, id_: str) -> Done:
    user, email = office.person()
    for _ in range(10):
        assert office.ask("POST", "/auth/login", {"email": email, "password": "wrong"}, "").status == 401
    answer = office.ask("POST", "/auth/login", {"email": email, "password": PASSWORD}, "", id_)
    assert answer.json()["error"]["code"] == "AUTH_004"
    return answer, str(user)


def logout(office: Office, id_: str) -> Done:
    user, email = office.person()
    return office.ask("POST", "/auth/logout", token=office.sign_in(email)["access_token"], request_id=id_), str(user)


def refresh(office: Office, id_: str) -> Done:
    user, email = office.person()
    body = {"refresh_token": office.sign_in(email)["refresh_token"]}
    return office.ask("POST", "/auth/refresh", body, "", id_), str(user)


def refresh_twice(office: Office, id_: str) -> Done:
    user, email = office.person()
    body = {"refresh_token": office.sign_in(email)["refresh_token"]}
    assert office.ask("POST", "/auth/refresh", body, "").status == 200
    time.sleep(0.1)
    return office.ask("POST", "/auth/refresh", body, "", id_), str(user)


def password(office: Office, id_: str, current: str = PASSWORD) -> Done:
    user, email = office.person()
    body = {"current_password": current, "new_password": "another good password"}
    return office.ask("PUT", "/auth/password", body, office.sign_in(email)["access_token"], id_), str(user)


def wrong_password(office: Office, id_: str) -> Done:
    return password(office, id_, "not the password")


def locked_password(office: Office, id_: str) -> Done:
    user, email = office.person()
    token = office.sign_in(email)["access_token"]
    body = {"current_password": "not the password", "new_password": "another good password"}
    for _ in range(10):
        assert office.ask("PUT", "/auth/password", body, token).status == 422
    return office.ask("PUT", "/auth/password", body, token, id_), str(user)


def role(office: Office, id_: str) -> Done:
    return office.ask("PUT", f"/users/{office.person()[0]}/role", {"role": "manager"}, request_id=id_), "1"


def delete(office: Office, id_: str) -> Done:
    return office.ask("DELETE", f"/users/{office.person()[0]}", request_id=id_), "1"


def organization(office: Office, id_: str) -> Done:
    return office.ask("PUT", "/organization", {"policies": "ISO27001"}, request_id=id_), "1"


def update(office: Office, id_: str) -> Done:
    return office.ask("PUT", "/users/me", {"preferences": {"lang": "es"}}, request_id=id_), "1"


def upload(office: Office, id_: str) -> Done:
    return office.ask("POST", "/media/upload", FILE, request_id=id_), "1"


def download(office: Office, id_: str) -> Done:
    item = office.ask("POST", "/media/upload", FILE).json()["id"]
    return office.ask("GET", f"/media/items/{item}/download", request_id=id_), "1"


def remove(office: Office, id_: str) -> Done:
    item = office.ask("POST", "/media/upload", FILE).json()["id"]
    return office.ask("DELETE", f"/media/items/{item}", request_id=id_), "1"


def bucket(office: Office, id_: str) -> Done:
    return office.ask("POST", "/timeseries/buckets", {"bucket": "org_1_made"}, request_id=id_), "1"


def no_bucket(office: Office, id_: str) -> Done:
    assert office.ask("POST", "/timeseries/buckets", {"bucket": "org_1_gone"}).status == 201
    return office.ask("DELETE", "/timeseries/buckets/org_1_gone", request_id=id_), "1"


def write(office: Office, id_: str) -> Done:
    body = {"points": [{"measurement": "heart_rate", "fields": {"bpm": 72}}]}
    return office.ask("POST", "/timeseries/write", body, request_id=id_), "1"


def denied(office: Office, id_: str) -> Done:
    user, email = office.person()
    return office.ask("GET", "/users", token=office.sign_in(email)["access_token"], request_id=id_), str(user)


ACTIONS: list[tuple[str, str, str, int, Do]] = [
    ("REGISTER", "auth", "success", 201, register),
    ("LOGIN", "auth", "success", 200, login),
    ("LOGIN_FAILED", "auth", "failure", 401, login_failed),
    ("LOGIN_FAILED", "auth", "denied", 429, login_locked),
    ("LOGOUT", "auth", "success", 204, logout),
    ("TOKEN_REFRESH", "auth", "success", 200, refresh),
    ("TOKEN_REUSE", "auth", "denied", 401, refresh_twice),
    ("PASSWORD_CHANGE", "auth", "success", 204, password),
    ("PASSWORD_CHANGE", "auth", "failure", 422, wrong_password),
    ("PASSWORD_CHANGE", "auth", "denied", 429, locked_password),
    ("ROLE_CHANGE", "user", "success", 200, role),
    ("USER_DELETE", "user", "success", 204, delete),
    ("ORGANIZATION_UPDATE", "organization", "success", 200, organization),
    ("USER_UPDATE", "user", "success", 200, update),
    ("MEDIA_UPLOAD", "media", "success", 201, upload),
    ("MEDIA_DOWNLOAD", "media", "success", 200, download),
    ("MEDIA_DELETE", "media", "success", 204, remove),
    ("BUCKET_CREATE", "timeseries", "success", 201, bucket),
    ("BUCKET_DELETE", "timeseries", "success", 204, no_bucket),
    ("TIMESERIES_WRITE", "timeseries", "success", 200, write),
    ("ACCESS_DENIED", "gateway", "denied", 403, denied),
    ("REQUEST", "gateway", "success", 200, organization),
    ("REQUEST", "gateway", "intent", 200, organization),
]


@pytest.mark.parametrize(
    ("action", "service", "outcome", "status", "do"), ACTIONS, ids=[f"{one[0]}-{one[2]}" for one in ACTIONS]
)
def test_what_is_done_is_in_the_trail(
    office: Office, action: str, service: str, outcome: str, status: int, do: Do
) -> None:
    request_id = f"{action}-{outcome}".lower().replace("_", "-")
    answer, actor = do(office, request_id)
    assert answer.status == status, answer.data
    event = office.find(request_id, action=action, outcome=outcome, service=service)
    assert (event["actor"], event["request_id"]) == (actor, request_id)
    assert event in office.events(actor=actor, action=action)


# Nobody records


def test_while_the_audit_service_is_stopped_all_goes_on_and_nothing_is_lost(office: Office) -> None:
    supervisor = office.stack.supervisor
    _, before = changes(office, STOPPED / 5, "before")
    supervisor._call("supervisor.stopProcess", "services:audit")
    try:
        acknowledged, times = changes(office, STOPPED, "stopped")
        assert len(acknowledged) > CLIENTS
        ready = office.ask("GET", "/gateway/ready").json()
        assert ready["status"] == "degraded"
        assert [check["name"] for check in ready["checks"] if check["status"] == "failed"] == ["audit"]
        wait_until(lambda: waiting(office) > len(acknowledged), "The metrics do not tell of the backlog", 10)
    finally:
        supervisor._call("supervisor.startProcess", "services:audit")
    begun = time.monotonic()
    wait_until(lambda: office.ask("GET", "/audit/ready").status == 200, "It did not come back", 60)
    if STOPPED > 35:  # the oldest event has waited for longer than the service finds well
        wait_until(lambda: "degraded" in office.ask("GET", "/audit/ready").data.decode(), "It seems well", 20)
    wait_until(lambda: waiting(office) == 0, "The backlog was not worked off", 300)
    took = f"{median(times) * 1000:.1f} ms each, {median(before) * 1000:.1f} before"
    print(f"{len(acknowledged)} changes in {STOPPED:g} s, {took}; drained in {time.monotonic() - begun:.1f} s")
    wait_until(lambda: ready_is(office, "ready"), "It is degraded still", 60)
    assert office.ask("GET", "/audit/verify").json()["valid"]
    recorded = trail(office)
    for request_id in acknowledged:
        assert recorded[request_id, "USER_UPDATE", "success"] == 1
        assert recorded[request_id, "REQUEST", "success"] == 1


def ready_is(office: Office, status: str) -> bool:
    """What both say of themselves."""
    return all(office.ask("GET", path).json()["status"] == status for path in ("/audit/ready", "/gateway/ready"))


def changes(office: Office, seconds: float, name: str) -> tuple[list[str], list[float]]:
    """The ids of what was changed, and how long each change took."""
    end = time.monotonic() + seconds

    def change(number: int) -> list[tuple[str, float]]:
        done = []
        while time.monotonic() < end:
            request_id = f"{name}-{number}-{len(done)}"
            begun = time.monotonic()
            answer = office.ask("PUT", "/users/me", {"preferences": {"lang": "es"}}, request_id=request_id)
            assert answer.status == 200, answer.data
            done.append((request_id, time.monotonic() - begun))
        return done

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = [one for of in pool.map(change, range(CLIENTS)) for one in of]
    return [request_id for request_id, _ in done], [took for _, took in done]


def waiting(office: Office) -> float:
    """Events in the stream, as the gateway's metrics tell."""
    name = 'heartguard_audit_stream_events{service="gateway"} '
    lines = office.ask("GET", "/gateway/metrics").data.decode().splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def trail(office: Office) -> Counter[tuple[str | None, str, str]]:
    """How often each is in the organization's chain."""
    lines = map(json.loads, office.ask("GET", "/audit/export").data.splitlines())
    events = [line["event"] for line in lines if "event" in line]
    return Counter((event["request_id"], event["action"], event["outcome"]) for event in events)
