"""What ``heartguard validate`` tries, how it judges an answer, how it reports and ends."""

import gzip
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from heartguard.cli.client import Exchange, decode_answer
from heartguard.cli.main import app
from heartguard.cli.stopping import Stop, Stopped, stopped_by_signals
from heartguard.cli.validate.checks import difference, read
from heartguard.cli.validate.command import address
from heartguard.cli.validate.long_answers import BATCH, PARTS, SPAN, Part, check_all, lines, points, zipped_lines
from heartguard.cli.validate.operations import operations
from heartguard.cli.validate.report import FAILED, OK, SKIPPED, Report, Row, show
from heartguard.cli.validate.runner import retry_after
from heartguard.cli.validate.scene import Scene
from heartguard.cli.validate.steps import STEPS, Step
from heartguard.cli.validate.wrong import Wrong
from heartguard.errors import Malformed
from heartguard.models.timeseries import MAX_POINTS, MAX_RESULTS, QueryResult, Result
from heartguard.negotiation import Format
from heartguard.services import SERVICES
from heartguard.settings import ROOT
from heartguard.timestamps import SECOND

HEALTH = b'{"status":"ok","service":"auth","version":"1","uptime_seconds":1.5}'


def tried() -> set[str]:
    return {step.operation for step in STEPS if not step.bad}


def test_every_published_operation_is_tried() -> None:
    routes = json.loads((ROOT / "schemas" / "routes.json").read_text())["routes"]
    assert {f"{route['method']} {route['path']}" for route in routes} - tried() == set()
    assert set(operations()) - tried() == set()


def test_nothing_is_tried_that_is_not_published() -> None:
    paths = {service.path for service in SERVICES.values()}
    installed = {name for name in tried() if f"/{name.split('/')[1]}" in paths}
    assert installed <= set(operations())


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_asked_something_wrong(service: str) -> None:
    path = SERVICES[service].path
    assert any(step.bad for step in STEPS if step.operation.split(" ")[1].startswith(path))


# A long answer


START = 1_717_236_000 * SECOND


def written() -> list[Result]:
    """All that is written for it, as it should come back."""
    rows = [
        (part, number, *field) for part in PARTS for number in part.numbers() for field in part.fields(number).items()
    ]
    return [
        Result(
            time=points(replace(part, first=number, points=1), START)[0]["timestamp"],
            field=field,
            value=value,
            tags={"by": part.by},
        )
        for part, number, field, value in rows
    ]


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return written()


def test_it_is_as_long_as_the_limits_allow(results: list[Result]) -> None:
    assert len(results) == MAX_RESULTS
    assert BATCH.points == MAX_POINTS
    assert SPAN + 10 * 60 < 3600  # what the bucket keeps, and the waiting for rate limits
    assert check_all(START, results)


def test_what_is_no_xml_is_no_answer() -> None:
    with pytest.raises(Malformed, match="not XML"):
        decode_answer(b"<QueryResult>", Format.XML, QueryResult)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows[:-1], "beats of .* by gzip is missing: 99999 values came back, 100000 were written"),
        (lambda rows: [*rows, rows[-1]], "more than was written: 100001 values came back"),
        (lambda rows: rows[::-1], "do not come oldest first"),
        (
            lambda rows: [msgspec.structs.replace(rows[0], value=1.0), *rows[1:]],
            "bpm of .* by batch is 1.0 instead of 60.0",
        ),
        (
            lambda rows: [rows[0], msgspec.structs.replace(rows[1], value=0.0), *rows[2:]],
            "regular of .* is 0.0 instead of 'false as a boolean'",
        ),
        (
            lambda rows: [*rows[:2], msgspec.structs.replace(rows[2], value=0), *rows[3:]],
            "note of .* is 0 instead of '0'",
        ),
        (lambda rows: [*rows[:-1], msgspec.structs.replace(rows[-1], tags={})], "beats of .* is missing"),
    ],
)
def test_what_is_not_as_it_was_written_is_named(
    results: list[Result], spoil: Callable[[list[Result]], list[Result]], said: str
) -> None:
    with pytest.raises(Wrong, match=said):
        check_all(START, spoil(results))


def test_lines_say_the_same_as_points() -> None:
    part = Part("lines", 2, 1, lambda _: {"bpm": 0.5, "beats": 7})
    assert lines(part, START) == b"validate,by=lines bpm=0.5,beats=7i 1717236000100000002"
    assert points(part, START)[0]["timestamp"] == "2024-06-01T10:00:00.100000002Z"
    assert gzip.decompress(zipped_lines(part, START)) == lines(part, START)


# Judging


def judged(name: str, got: Exchange, fmt: Format = Format.JSON, **step: object) -> object:
    made = Scene().made[fmt]
    return read(Step(operation=name, **step), operations()[name], made, fmt, got)  # type: ignore[arg-type]


def answer(body: bytes, media_type: str = "application/json", status: int = 200, **headers: str) -> Exchange:
    return Exchange(status, {"Content-Type": media_type, "X-Request-ID": "a", **headers}, body, 0.001)


def test_a_good_answer_is_read() -> None:
    assert judged("GET /auth/health", answer(HEALTH)).service == "auth"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (answer(HEALTH, "text/html"), "Content-Type is text/html"),
        (answer(b"{}"), "not a Health"),
        (answer(b"oops"), "not a Health"),
        (answer(HEALTH, status=201), "not documented"),
        (answer(b'{"error":{"code":"AUTH_500","message":"no","request_id":"a"}}', status=500), "AUTH_500 no"),
        (answer(b"<html>", status=502), "502, an answer that is not the contract's"),
    ],
)
def test_a_bad_answer_is_named(got: Exchange, said: str) -> None:
    with pytest.raises(Wrong, match=said):
        judged("GET /auth/health", got)


def test_an_answer_that_is_not_what_was_to_be_expected() -> None:
    with pytest.raises(Wrong, match="not what was to be expected"):
        judged("GET /auth/health", answer(HEALTH), check=lambda _made, found: found.service == "user")
    with pytest.raises(Wrong, match="not what was to be expected"):
        judged("GET /gateway/openapi.json", answer(b"{"), check=lambda _made, found: bool(json.loads(found)))


def test_nothing_is_nothing() -> None:
    assert judged("POST /auth/logout", answer(b"", status=204)) is None
    with pytest.raises(Wrong, match="a body where there should be none"):
        judged("POST /auth/logout", answer(b"x", status=204))


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"error":{"code":"AUTH_422","message":"no","request_id":"a"}}', 200, "200 where a wrong request"),
        (b'{"error":{"code":"USER_422","message":"no","request_id":"a"}}', 422, "USER_422, not AUTH_422"),
        (b'{"error":{"code":"AUTH_422","message":"no","request_id":"b"}}', 422, "another request"),
        (b'{"code":"AUTH_422"}', 422, "shape of an error"),
    ],
)
def test_an_error_has_the_contracts_shape(body: bytes, status: int, said: str) -> None:
    with pytest.raises(Wrong, match=said):
        judged("POST /auth/token/introspect", answer(body, status=status), bad=422)


def test_answers_are_compared_but_for_what_may_differ() -> None:
    one = {"id": 1, "items": [{"id": 1, "name": "a"}]}
    other = {"id": 2, "items": [{"id": 3, "name": "b"}]}
    assert difference(one, one, frozenset()) is None
    assert difference(one, other, frozenset()) == "/id"
    assert difference(one, other, frozenset({"id"})) == "/items/0/name"
    assert difference(one, {"id": 1, "items": []}, frozenset()) == "/items"
    assert difference(one, {"items": one["items"]}, frozenset()) == "/id"


@pytest.mark.parametrize(("said", "seconds"), [("7", 7.0), ("0", 1.0), ("", None), ("tomorrow", None)])
def test_retry_after_is_read(said: str, seconds: float | None) -> None:
    assert retry_after(answer(b"", **{"Retry-After": said})) == seconds


# Where, and how it ends


@pytest.mark.parametrize(
    ("url", "environ", "found"),
    [
        (None, {}, "http://127.0.0.1:5000"),
        (None, {"GATEWAY_PORT": "8080"}, "http://127.0.0.1:8080"),
        (None, {"GATEWAY_HOST": "hg.example"}, "http://hg.example:5000"),
        (None, {"GATEWAY_HOST": "hg.example:81"}, "http://hg.example:81"),
        (None, {"GATEWAY_HOST": "[::1]"}, "http://[::1]:5000"),
        (None, {"GATEWAY_HOST": "https://hg.example"}, "https://hg.example"),
        (None, {"GATEWAY_URL": "https://hg.example", "GATEWAY_HOST": "other"}, "https://hg.example"),
        ("hg.example:82", {"GATEWAY_URL": "https://other"}, "http://hg.example:82"),
    ],
)
def test_the_address(url: str | None, environ: dict[str, str], found: str) -> None:
    assert address(url, environ) == found


def report(*verdicts: str) -> Report:
    rows = [
        Row(
            operation=f"GET /users/{{id}} {i}",
            service="user",
            format="XML",
            status=502,
            verdict=verdict,
            problem="away",
        )  # type: ignore[arg-type]
        for i, verdict in enumerate(verdicts)
    ]
    return Report(gateway="http://hg.example", started_at=datetime.now(UTC), operations=rows)


def shown(found: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(found, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_run_passes_only_where_all_was_tried_and_is_well() -> None:
    assert report(OK, OK).passed
    assert not report().passed
    assert not report(OK, FAILED).passed
    assert not report(OK, SKIPPED).passed
    left, interrupted = report(OK), report(OK)
    left.left_behind, interrupted.interrupted = ["the user x"], True
    assert not left.passed
    assert not interrupted.passed
    assert "left behind the user x" in shown(left)
    assert "Interrupted" in shown(interrupted)


def test_the_report_names_the_service_and_what_is_wrong() -> None:
    text = shown(report(OK, FAILED, SKIPPED))
    assert "failed GET /users/{id} 1 in XML: away" in text
    assert "Not all is well in user: 1 ok, 1 failed, 1 not tried" in text
    assert "All is well: 1 ok" in shown(report(OK))


def test_the_report_for_programs() -> None:
    found = json.loads(report(OK, FAILED).to_json())
    assert (found["passed"], found["ok"], found["failed"], found["skipped"]) == (False, 1, 1, 0)
    assert found["operations"][1]["verdict"] == "failed"
    assert found["gateway"] == "http://hg.example"


def test_the_first_signal_ends_in_order_and_the_second_at_once() -> None:
    stop = Stop()
    with stopped_by_signals(stop):
        os.kill(os.getpid(), signal.SIGINT)
        begun = time.monotonic()
        stop.wait(60)
        assert time.monotonic() - begun < 30
        with pytest.raises(Stopped):
            stop.check()
        with stop.postponed():
            stop.check()
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 130


def validate(*arguments: str, **environ: str) -> tuple[int, str]:
    settings = {"GATEWAY_URL": "", "VALIDATE_PASSWORD": "", "BOOTSTRAP_ADMIN_PASSWORD": "", **environ}
    result = CliRunner().invoke(app, ["validate", *arguments], prog_name="heartguard", env=settings)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_nobody_there(free_port: Callable[[], int]) -> None:
    code, said = validate(GATEWAY_URL=f"http://127.0.0.1:{free_port()}", VALIDATE_PASSWORD="some password")
    assert code == 2
    assert "There is no answer from" in said
    assert "GATEWAY_URL" in said


def test_something_else_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")

        thread = threading.Thread(target=serve)
        thread.start()
        code, said = validate(
            GATEWAY_URL=f"http://127.0.0.1:{server.getsockname()[1]}", VALIDATE_PASSWORD="some password"
        )
        thread.join(10)
    assert code == 2
    assert "no HeartGuard gateway" in said


def test_without_a_password_it_says_which_to_set() -> None:
    code, said = validate("--email", "ana@hg.io")
    assert code == 2
    assert "ana@hg.io" in said
    assert "VALIDATE_PASSWORD" in said


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    code, said = validate("--json", str(tmp_path / "nowhere" / "result.json"))
    assert code == 2
    assert "There is no folder" in said
