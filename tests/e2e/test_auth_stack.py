"""Auth as a client of the gateway sees it, on a whole stack: theft, lock-out, keys that rotate under load."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from typer.testing import CliRunner

from heartguard.cli.main import app
from heartguard.local.stack import Stack

EMAIL, PASSWORD = "owner@hg.io", "Secret123!x"


def heartguard(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), prog_name="heartguard")
    assert result.exit_code == 0, result.output
    return result.output


class Client:
    """A device: keeps what cookies it is given."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._pool = urllib3.PoolManager(maxsize=8, timeout=15, retries=False)
        self.cookie = ""

    def ask(self, method: str, path: str, token: str = "", **body: Any) -> urllib3.BaseHTTPResponse:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        answer = self._pool.request(method, self._gateway + path, json=body or None, headers=headers)
        if given := answer.headers.get("Set-Cookie"):
            self.cookie = given.partition(";")[0]
        return answer

    def login(self, password: str = PASSWORD, email: str = EMAIL) -> urllib3.BaseHTTPResponse:
        return self.ask("POST", "/auth/login", email=email, password=password)

    def refresh(self, pair: dict[str, str]) -> urllib3.BaseHTTPResponse:
        return self.ask("POST", "/auth/refresh", refresh_token=pair["refresh_token"])


@pytest.fixture(scope="module")
def gateway(stack_settings: dict[str, str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFRESH_GRACE_SECONDS", "1")
        heartguard("up")
    address = Stack().gateway
    assert Client(address).ask("POST", "/auth/register", email=EMAIL, password=PASSWORD).status == 201
    return address


@pytest.fixture
def client(gateway: str) -> Client:
    return Client(gateway)


def test_a_replay_ends_the_session_at_the_gateway_within_a_second(client: Client) -> None:
    pair = client.login().json()
    successor = client.refresh(pair).json()
    assert client.refresh(pair).json() == successor
    time.sleep(1.2)
    stolen = client.refresh(pair)
    assert (stolen.status, stolen.json()["error"]["code"]) == (401, "AUTH_003")
    time.sleep(1)
    for token in (pair["access_token"], successor["access_token"]):
        answer = client.ask("GET", "/auth/roles", token)  # the service does not look it up: the gateway refuses
        assert (answer.status, answer.json()["error"]["code"]) == (401, "GATEWAY_401")


def test_sessions_and_passwords_through_the_gateway(client: Client, gateway: str) -> None:
    lost, other, own = (client.login().json()["access_token"] for _ in range(3))
    sessions = client.ask("GET", "/auth/sessions", own).json()["sessions"]
    assert [session["current"] for session in sessions[:3]] == [True, False, False]
    assert client.ask("DELETE", f"/auth/sessions/{sessions[2]['id']}", own).status == 204
    assert client.ask("GET", "/auth/roles", lost).status == 401
    wanted = {"current_password": PASSWORD, "new_password": PASSWORD + "!"}
    assert client.ask("PUT", "/auth/password", own, **wanted).status == 204
    assert client.ask("GET", "/auth/roles", other).status == 401
    assert client.ask("GET", "/auth/roles", own).status == 200
    back = {"current_password": PASSWORD + "!", "new_password": PASSWORD}
    assert client.ask("PUT", "/auth/password", own, **back).status == 204


def test_the_gateway_carries_the_cookie_by_which_a_device_is_known(client: Client, gateway: str) -> None:
    victim = "victim@hg.io"
    assert client.ask("POST", "/auth/register", email=victim, password=PASSWORD).status == 201
    assert client.login(email=victim).status == 200
    assert client.cookie.startswith("hg_device_")
    guesses = [Client(gateway).login(f"guess {i}", victim).status for i in range(100)]
    assert (guesses.count(401), guesses.count(429)) == (10, 90)
    assert client.login(email=victim).status == 200
    assert Client(gateway).login(email=victim).json()["error"]["code"] == "AUTH_004"


def test_keys_rotate_under_load_and_nobody_is_refused(client: Client, gateway: str) -> None:
    first = client.login().json()
    stop = threading.Event()

    def work(pair: dict[str, str]) -> tuple[int, dict[str, str]]:
        """Refreshes and calls two services with the newest token and with the first, for as long as it may."""
        device, calls = Client(gateway), 0
        begun = pair
        while not stop.is_set():
            answer = device.refresh(pair)
            assert answer.status == 200, answer.data
            pair = answer.json()
            for token in (begun["access_token"], pair["access_token"]):
                for path in ("/auth/profile", "/timeseries/buckets"):
                    assert device.ask("GET", path, token).status == 200
                    calls += 1
        return calls, pair

    before = heartguard("keys", "list")
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(work, client.login().json()) for _ in range(4)]
        try:
            for _ in range(2):
                heartguard("keys", "rotate", "--delay", "2")
                time.sleep(3.5)
        finally:
            stop.set()
        done = [one.result(20) for one in running]
    after = heartguard("keys", "list")
    assert (before.count("signs "), after.count("verifies"), after.count("signs ")) == (1, 2, 1)
    assert all(calls > 20 for calls, _ in done)
    assert client.ask("GET", "/auth/profile", first["access_token"]).status == 200
    assert client.refresh(done[0][1]).status == 200


def test_after_a_compromise_all_sign_in_again(client: Client) -> None:
    old = client.login().json()
    assert client.ask("GET", "/auth/roles", old["access_token"]).status == 200
    heartguard("keys", "rotate", "--compromised")
    time.sleep(1.2)
    assert client.ask("GET", "/auth/roles", old["access_token"]).status == 401
    assert client.refresh(old).status == 401
    new = client.login().json()
    assert client.ask("GET", "/timeseries/buckets", new["access_token"]).status == 200
