"""Takes the steps one by one, in each format, and removes in the end what they made."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from lxml import etree

from ...codec import encode
from ...negotiation import Format
from ..client import Exchange, GatewayClient, NoAnswer
from .checks import Wrong, difference, read
from .operations import Operation
from .report import FAILED, OK, SKIPPED, Row
from .scene import Made, Scene
from .steps import Step

LONGEST_WAIT = 60.0
"""Seconds that one request waits for the rate limit, or for a busy service, all in all."""

BEGINNING = 64 * 1024
"""Bytes of a stream that are read."""

GONE = {204, 404}
UNCERTAIN = {201, 504}
"""Statuses after which there may be something to remove."""


class Stopped(Exception):
    """The person at the keyboard has had enough."""


class Runner:
    """``stop`` ends the run between two requests; ``say`` is told why nothing moves."""

    def __init__(self, client: GatewayClient, stop: threading.Event, say: Callable[[str], None]) -> None:
        self.scene = Scene()
        self._client = client
        self._stop = stop
        self._say = say
        self._requests = 0
        self._cleaning = False

    # One request

    def send(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str], step: Step | None = None
    ) -> Exchange:
        """What comes back once it is this client's turn. Raises :class:`NoAnswer`, :class:`Stopped`."""
        self._requests += 1
        headers = {"X-Request-ID": f"validate-{self.scene.mark}-{self._requests}", **headers}
        again, most = (step.again, BEGINNING if step.stream else None) if step else (frozenset({429}), None)
        left = LONGEST_WAIT
        while True:
            self._check_stopped()
            got = self._client.exchange(method, url, body, headers, most=most)
            seconds = retry_after(got)
            if got.status not in again or _is_away(got) or seconds is None or seconds > left:
                return got
            left -= seconds
            self._say(f"waiting {seconds:.0f} s, as {got.status} asks for")
            self._wait(seconds)

    def _check_stopped(self) -> None:
        if self._stop.is_set() and not self._cleaning:
            raise Stopped

    def _wait(self, seconds: float) -> None:
        if self._cleaning:
            time.sleep(seconds)
        else:
            self._stop.wait(seconds)

    # One step

    def run(self, step: Step, operation: Operation) -> Iterator[Row]:
        """A row for each format. Answers in both are also compared with one another."""
        answers: dict[Format, Any] = {}
        for fmt in Format:
            row, answers[fmt] = self._attempt(step, operation, fmt)
            if fmt is Format.XML and answers[Format.JSON] is not None and answers[fmt] is not None:
                row = self._compared(row, step, operation, answers)
            yield row

    def _attempt(self, step: Step, operation: Operation, fmt: Format) -> tuple[Row, Any]:
        """The row, and the answer where it is a good one of a type."""
        made = self.scene.made[fmt]
        name = f"{step.operation}, wrong on purpose" if step.bad else step.operation
        row = Row(operation=name, service=operation.service, format=fmt.name)
        headers = self._headers(step, operation, made, fmt)
        if headers is None:
            return msgspec.structs.replace(row, verdict=SKIPPED, problem="nobody is signed in for it"), None
        body = self._body(step, operation, made, fmt)
        try:
            got = self.send(operation.method, _url(step, operation, made), body, headers, step)
        except NoAnswer as problem:
            self._remember(step, made, 504)
            return msgspec.structs.replace(row, verdict=FAILED, problem=str(problem).splitlines()[-1]), None
        row = msgspec.structs.replace(
            row, status=got.status, milliseconds=round(got.seconds * 1000, 1), request_id=self._id()
        )
        try:
            answer = read(step, operation, made, fmt, got)
            self._require_echo(step, made, got)
        except Wrong as problem:
            self._remember(step, made, got.status)
            return msgspec.structs.replace(row, verdict=FAILED, problem=str(problem)), None
        if not step.bad:
            step.learn(made, answer, got.headers)
            self._remember(step, made, got.status)
        if operation.method == "DELETE":
            self.scene.left.pop(_url(step, operation, made), None)
        return msgspec.structs.replace(row, verdict=OK), answer if isinstance(answer, msgspec.Struct) else None

    def _id(self) -> str:
        return f"validate-{self.scene.mark}-{self._requests}"

    def _headers(self, step: Step, operation: Operation, made: Made, fmt: Format) -> dict[str, str] | None:
        """None where it needs a token that there is not, or an address that only a token could have got."""
        headers = {"Accept": fmt.value, **step.headers(made)}
        if step.body is not None:
            headers["Content-Type"] = step.media_type or fmt.value
        who = step.who or ("nobody" if operation.public else "admin")
        if who == "nobody":
            return None if step.url and not step.url(made) and self.scene.token is None else headers
        token = self.scene.token if who == "admin" else made.token
        return None if token is None else {**headers, "Authorization": f"Bearer {token}"}

    def _body(self, step: Step, operation: Operation, made: Made, fmt: Format) -> bytes | None:
        if step.body is None:
            return None
        properties = step.body(made)
        if isinstance(properties, bytes):
            return properties
        assert operation.request is not None
        if step.bad is None:
            return encode(msgspec.convert(properties, operation.request), fmt)
        if fmt is Format.JSON:
            return msgspec.json.encode(properties)
        root = etree.Element(operation.request.__name__)
        for name, value in properties.items():
            etree.SubElement(root, name).text = msgspec.json.encode(value).decode()
        return etree.tostring(root)

    def _require_echo(self, step: Step, made: Made, got: Exchange) -> None:
        elsewhere = step.url is not None and not (step.url(made) or "/").startswith((self._client.url, "/"))
        if not elsewhere and got.headers.get("X-Request-ID") != self._id():
            raise Wrong("X-Request-ID does not come back")

    def _remember(self, step: Step, made: Made, status: int) -> None:
        if step.makes is not None and status in UNCERTAIN:
            path, name = step.makes(made)
            self.scene.left[path] = name

    def _compared(self, row: Row, step: Step, operation: Operation, answers: dict[Format, Any]) -> Row:
        """What others do meanwhile can make two answers differ: what only reads is asked once more."""
        where = difference(answers[Format.JSON], answers[Format.XML], step.varies)
        if where is not None and operation.method == "GET":
            _, again = self._attempt(step, operation, Format.JSON)
            where = None if again is None else difference(again, answers[Format.XML], step.varies)
        if where is None:
            return row
        return msgspec.structs.replace(row, verdict=FAILED, problem=f"means something else than in JSON: {where}")

    # The end

    def clean_up(self) -> list[str]:
        """Remove what is left, newest first, and sign out. Returns what could not be removed."""
        self._cleaning = True
        if self.scene.token is None:
            return []
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self.scene.token}"}
        left = [name for path, name in reversed(self.scene.left.items()) if not self._ask("DELETE", path, headers)]
        if not self._ask("POST", "/auth/logout", headers):
            left.append("the session of the one who signed in")
        return left

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> bool:
        try:
            return self.send(method, path, None, headers).status in GONE
        except NoAnswer:
            return False


def _is_away(got: Exchange) -> bool:
    """Whether it is the gateway that says 503, because the service does not answer."""
    return got.status == 503 and b"GATEWAY_503" in got.body


def retry_after(got: Exchange) -> float | None:
    """Seconds, at least one; None where the answer does not say."""
    said = got.headers.get("Retry-After", "")
    return max(1.0, float(said)) if said.isascii() and said.isdigit() else None


def _url(step: Step, operation: Operation, made: Made) -> str:
    if step.url is not None and (url := step.url(made)):
        return url
    path = operation.path
    for name, value in step.path(made).items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    return path + step.query(made)
