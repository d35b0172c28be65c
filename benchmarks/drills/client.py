"""A client of one connection, which gets every answer, also that there is none."""

import http.client
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from ..context import Broken

JSON, XML, LINES = "application/json", "application/xml", "text/plain"
NO_ANSWER = 0
"""The status where nothing came back: the connection broke off, or the time was over."""
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """``seconds`` is how long it took."""

    status: int
    body: bytes
    seconds: float
    retry_after: float = 0.0

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def expect(self, *statuses: int) -> "Answer":
        if self.status not in statuses:
            raise Broken(f"answered {self.status}: {self.body[:500]!r}")
        return self


class Client:
    """One connection to a port of 127.0.0.1, opened anew where it was broken off. For one thread."""

    def __init__(self, port: int, token: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, body: bytes | None = None, content: str = JSON) -> Answer:
        headers = {**self._headers, "Accept": XML if content == XML else JSON}
        if body is not None:
            headers["Content-Type"] = content
        begun = time.perf_counter()
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            return Answer(NO_ANSWER, repr(problem).encode(), time.perf_counter() - begun)
        after = answer.headers.get("Retry-After", "")
        taken = time.perf_counter() - begun
        return Answer(answer.status, text, taken, float(after) if after.isdecimal() else 0.0)

    def post(self, path: str, asked: object) -> Answer:
        return self.ask("POST", path, msgspec.json.encode(asked))

    def query(self, **asked: object) -> Answer:
        return self.post("/timeseries/query", asked)

    def write(self, lines: bytes, bucket: str = "") -> Answer:
        """Line protocol, times in nanoseconds."""
        where = f"?bucket={bucket}" if bucket else ""
        return self.ask("POST", f"/timeseries/write{where}", lines, LINES)

    def close(self) -> None:
        self._connection.close()
