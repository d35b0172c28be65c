"""Bodies made to exhaust a parser are malformed, to the service as a whole."""

import gzip
import socket
import threading
from collections.abc import Iterator

import pytest

from ..callers import code
from .conftest import Caller

DEEP = 100_000


def document(declarations: str, text: str, root: str = "WriteRequest") -> str:
    return f"<!DOCTYPE {root} [{declarations}]><{root}><bucket>{text}</bucket></{root}>"


def laughs() -> str:
    layers = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
    return document("<!ENTITY a0 'ha'>" + layers, "&a9;")


BODIES = {
    "billion laughs": ("xml", laughs()),
    "quadratic blow-up": ("xml", document(f"<!ENTITY a '{'a' * 50_000}'>", "&a;" * 50_000)),
    "entity from a file": ("xml", document("<!ENTITY a SYSTEM 'file:///etc/hostname'>", "&a;")),
    "entity over HTTP": ("xml", document("<!ENTITY a SYSTEM 'http://127.0.0.1:PORT/a'>", "&a;")),
    "parameter entity": ("xml", document("<!ENTITY % a SYSTEM 'http://127.0.0.1:PORT/a'> %a;", "x")),
    "parameter entity within": ("xml", document("<!ENTITY % a \"<!ENTITY b 'c'>\"> %a;", "&b;")),
    "DTD over HTTP": ("xml", "<!DOCTYPE WriteRequest SYSTEM 'http://127.0.0.1:PORT/a'><WriteRequest/>"),
    "nested elements": ("xml", "<WriteRequest>" + "<a>" * DEEP + "</a>" * DEEP + "</WriteRequest>"),
    "nested elements left open": ("xml", "<WriteRequest>" + "<a>" * DEEP),
    "nested lists": ("json", '{"points":' + "[" * DEEP + "]" * DEEP + "}"),
    "nested lists left open": ("json", '{"points":' + "[" * DEEP),
    "nested objects": ("json", '{"points":' + '{"a":' * DEEP + "1" + "}" * DEEP + "}"),
}


@pytest.fixture
def visitors() -> Iterator[tuple[int, list[str]]]:
    """A port that takes connections, and who came."""
    seen: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            try:
                while True:
                    server.accept()[0].close()
                    seen.append("somebody")
            except OSError:
                pass

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], seen
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_malformed(admin: Caller, visitors: tuple[int, list[str]], name: str, packed: bool) -> None:
    port, seen = visitors
    fmt, text = BODIES[name]
    body = text.replace("PORT", str(port)).encode()
    answer = admin.send(
        "POST",
        "/timeseries/write",
        data=gzip.compress(body) if packed else body,
        content_type=f"application/{fmt}",
        headers={"Content-Encoding": "gzip"} if packed else {},
    )
    assert (answer.status_code, code(answer)) == (400, "TS_400")
    assert len(answer.data) < 500
    assert seen == []
