"""Takes the steps one by one, in each format, and removes in the end what they made."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from ...negotiation import Format
from ..client import Exchange, GatewayClient, NoAnswer
from .checks import difference, read
from .composing import body_of, headers_of, url_of
from .operations import Operation
from .report import FAILED, OK, SKIPPED, Row
from .scene import Left, Made, Scene
from .steps import Step
from .wrong import Wrong

LONGEST_WAIT = 60.0
"""Seconds that one request waits for the rate limit, or for a busy service, all in all."""

BEGINNING = 64 * 1024
"""Bytes of a stream that are read."""

UNCERTAIN = {201, 504}
"""Statuses after which there may be something to remove."""


class Runner:
    """The client's ``stop`` ends the run between two requests; ``say`` is told why nothing moves."""

    def __init__(self, client: GatewayClient, say: Callable[[str], None]) -> None:
        self.scene = Scene()
        self._client = client
        self._say = say
        self._requests = 0

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
            got = self._client.exchange(method, url, body, headers, most=most)
            seconds = retry_after(got)
            if got.status not in again or _is_away(got) or seconds is None or seconds > left:
                return got
            left -= seconds
            self._say(f"waiting {seconds:.0f} s, as {got.status} asks for")
            self._client.stop.wait(seconds)

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
        name = f"{step.operation}, {step.note}" if step.note else step.operation
        row = Row(operation=name, service=operation.service, format=fmt.name)
        headers = headers_of(step, operation, made, fmt)
        if headers is None:
            return replace(row, verdict=SKIPPED, problem="nobody is signed in for it"), None
        url, body = url_of(step, operation, made), body_of(step, operation, made, fmt)
        try:
            got = self.send(operation.method, url, body, headers, step)
        except NoAnswer as problem:
            self._remember(step, made, 504, sure=False)
            return replace(row, verdict=FAILED, problem=str(problem).splitlines()[-1]), None
        row = replace(row, status=got.status, milliseconds=round(got.seconds * 1000, 1), request_id=self._id())
        try:
            answer = self._learnt(step, operation, made, fmt, got)
        except Wrong as problem:
            self._remember(step, made, got.status, sure=False)
            return replace(row, verdict=FAILED, problem=str(problem)), None
        self._remember(step, made, got.status, sure=True)
        if operation.method == "DELETE":
            self.scene.left.pop(url, None)
        return replace(row, verdict=OK), answer if isinstance(answer, msgspec.Struct) else None

    def _learnt(self, step: Step, operation: Operation, made: Made, fmt: Format, got: Exchange) -> Any:
        answer = read(step, operation, made, fmt, got)
        self._require_echo(step, made, got)
        if not step.bad:
            step.learn(made, answer, got.headers)
        return answer

    def _id(self) -> str:
        return f"validate-{self.scene.mark}-{self._requests}"

    def _require_echo(self, step: Step, made: Made, got: Exchange) -> None:
        elsewhere = step.url is not None and not (step.url(made) or "/").startswith((self._client.url, "/"))
        if not elsewhere and got.headers.get("X-Request-ID") != self._id():
            raise Wrong("X-Request-ID does not come back")

    def _remember(self, step: Step, made: Made, status: int, *, sure: bool) -> None:
        """Where it is not ``sure``, the thing may not be there, or its id not be known: then 404 proves nothing."""
        if step.makes is not None and status in UNCERTAIN:
            path, name = step.makes(made)
            self.scene.left[path] = Left(name, frozenset({204, 404} if sure else {204}))

    def _compared(self, row: Row, step: Step, operation: Operation, answers: dict[Format, Any]) -> Row:
        """What others do meanwhile can make two answers differ: what only reads is asked once more."""
        where = difference(answers[Format.JSON], answers[Format.XML], step.varies)
        if where is not None and operation.method == "GET":
            _, again = self._attempt(step, operation, Format.JSON)
            where = None if again is None else difference(again, answers[Format.XML], step.varies)
        if where is None:
            return row
        return replace(row, verdict=FAILED, problem=f"means something else than in JSON: {where}")

    # The end

    def clean_up(self) -> list[str]:
        """Remove what is left, newest first, and sign out. Returns what could not be removed."""
        if self.scene.token is None:
            return []
        with self._client.stop.postponed():
            return self._removed()

    def _removed(self) -> list[str]:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self.scene.token}"}
        things = reversed(self.scene.left.items())
        left = [thing.name for path, thing in things if self._ask("DELETE", path, headers) not in thing.gone]
        if self._ask("POST", "/auth/logout", headers) != 204:
            left.append("the session of the one who signed in")
        return left

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> int | None:
        try:
            return self.send(method, path, None, headers).status
        except NoAnswer:
            return None


def _is_away(got: Exchange) -> bool:
    """Whether it is the gateway that says 503, because the service does not answer."""
    return got.status == 503 and b"GATEWAY_503" in got.body


def retry_after(got: Exchange) -> float | None:
    """Seconds, at least one; None where the answer does not say."""
    said = got.headers.get("Retry-After", "")
    return max(1.0, float(said)) if said.isascii() and said.isdigit() else None
