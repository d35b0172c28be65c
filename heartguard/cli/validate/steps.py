"""What is tried, in order. A test holds this list against the published operations, both ways."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...models.timeseries import MAX_RESULTS
from ...services import SERVICES
from .long_answers import BATCH, GZIP, LINES, MEASUREMENT, POINTS, check_all, lines, points, zipped_lines
from .scene import CONTENT, Made

Who = Literal["admin", "person", "nobody"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation to try in each format; ``note`` tells it from others of the same operation.

    ``path`` gives what stands in the path's braces, ``url`` the whole address instead. ``body`` gives the request's
    properties, or bytes that are sent as ``media_type``. ``who`` is the admin who signed in, unless the operation is
    public. ``varies`` are properties, at any depth, that may differ between the formats. ``check`` says whether a good
    answer is the right one, or raises :class:`Wrong` with what is not. ``learn`` keeps what later steps need. ``makes``
    is the path under which a ``DELETE`` removes what was made, ``bad`` the status of a request that is wrong on
    purpose. ``again`` are statuses after which, having waited as long as ``Retry-After`` says, it is asked again. Of
    a ``stream`` only the beginning is read.
    """

    operation: str
    note: str = ""
    path: Callable[[Made], Mapping[str, Any]] = lambda _: {}
    url: Callable[[Made], str | None] | None = None
    query: Callable[[Made], str] = lambda _: ""
    body: Callable[[Made], dict[str, Any] | bytes] | None = None
    media_type: str | None = None
    headers: Callable[[Made], Mapping[str, str]] = lambda _: {}
    who: Who | None = None
    varies: frozenset[str] = frozenset()
    check: Callable[[Made, Any], bool] = lambda _made, _answer: True
    learn: Callable[[Made, Any, Mapping[str, str]], None] = lambda _made, _answer, _headers: None
    makes: Callable[[Made], tuple[str, str]] | None = None
    bad: int | None = None
    again: frozenset[int] = frozenset({429})
    stream: bool = False


def _of_every_service() -> list[Step]:
    steps = []
    for service in SERVICES.values():
        varying = {"latency_ms"} | ({"status"} if service.name == "gateway" else set())
        steps += [
            Step(operation=f"GET {service.path}/health", varies=frozenset({"uptime_seconds"})),
            Step(operation=f"GET {service.path}/ready", varies=frozenset(varying)),
            Step(operation=f"GET {service.path}/metrics", check=lambda _, text: b"# TYPE " in text),
        ]
    return steps


def _bad(operation: str) -> Step:
    return Step(operation=operation, note="wrong on purpose", body=lambda _: {"nonsense": True}, bad=422)


def _learn_user(made: Made, answer: Any, _headers: Mapping[str, str]) -> None:
    made.user_id = answer.user_id


def _learn_pair(made: Made, answer: Any, _headers: Mapping[str, str]) -> None:
    made.signed_in(answer)


def _learn_session(made: Made, answer: Any, _headers: Mapping[str, str]) -> None:
    made.session = next((session.id for session in answer.sessions if session.current), made.session)


def _learn_password(made: Made, _answer: Any, _headers: Mapping[str, str]) -> None:
    made.password += "!"


def _learn_organization(made: Made, answer: Any, headers: Mapping[str, str]) -> None:
    made.run.policies, made.run.etag = answer.policies, headers.get("ETag", "")


def _learn_item(made: Made, answer: Any, _headers: Mapping[str, str]) -> None:
    made.item = str(answer.id)


def _learn_link(made: Made, answer: Any, _headers: Mapping[str, str]) -> None:
    made.link = answer.url


TOKENS = frozenset({"access_token", "refresh_token"})
_LONG = {"measurement": MEASUREMENT, "limit": MAX_RESULTS}
PREFERENCES = {"lang": "es", "dark": True, "size": 1.5}


def _login() -> Step:
    return Step(
        operation="POST /auth/login",
        body=lambda made: {"email": made.email, "password": made.password},
        varies=TOKENS,
        learn=_learn_pair,
    )


AUTH = [
    Step(
        operation="POST /auth/register",
        who="admin",
        body=lambda made: {"email": made.email, "password": made.password},
        varies=frozenset({"user_id", "email"}),
        check=lambda made, answer: answer.email == made.email and answer.role == "user",
        learn=_learn_user,
        makes=lambda made: (f"/users/{made.user_id}", f"the user {made.email}"),
    ),
    _login(),
    Step(
        operation="POST /auth/refresh",
        body=lambda made: {"refresh_token": made.refresh_token},
        varies=TOKENS,
        learn=_learn_pair,
    ),
    Step(operation="GET /auth/profile", check=lambda made, answer: answer.org_id == made.run.org_id),
    Step(operation="GET /auth/roles", check=lambda _, answer: len(answer.roles) > 0),
    Step(
        operation="POST /auth/token/introspect",
        body=lambda made: {"token": made.token or "none"},
        varies=frozenset({"sub", "sid", "jti", "exp", "iat"}),
        check=lambda _, answer: answer.active,
    ),
    _bad("POST /auth/token/introspect"),
    Step(
        operation="PUT /users/me",
        who="person",
        body=lambda _: {"preferences": PREFERENCES},
        varies=frozenset({"id", "email", "created_at", "updated_at"}),
        check=lambda _, answer: answer.preferences == PREFERENCES,
    ),
    Step(
        operation="PUT /auth/password",
        who="person",
        body=lambda made: {"current_password": made.password, "new_password": made.password + "!"},
        learn=_learn_password,
    ),
    Step(operation="POST /auth/logout", who="person"),
    _login(),
    Step(
        operation="GET /auth/sessions",
        who="person",
        varies=frozenset({"id", "created_at", "last_used_at"}),
        check=lambda _, answer: sum(session.current for session in answer.sessions) == 1,
        learn=_learn_session,
    ),
    Step(operation="DELETE /auth/sessions/{id}", who="person", path=lambda made: {"id": made.session}),
]

ORGANIZATION = [
    Step(operation="GET /organization", learn=_learn_organization),
    Step(
        operation="GET /organization/policies",
        check=lambda made, answer: answer.policies == made.run.policies,
    ),
    Step(  # what it holds already, and only if nobody has changed it since: nothing has to be put back
        operation="PUT /organization",
        headers=lambda made: {"If-Match": made.run.etag or "*"},
        body=lambda made: {"policies": made.run.policies},
        varies=frozenset({"updated_at"}),
        check=lambda made, answer: answer.policies == made.run.policies,
        learn=_learn_organization,
    ),
    _bad("PUT /organization"),
]

USER = [
    Step(operation="GET /users/me"),
    _bad("PUT /users/me"),
    Step(operation="GET /users", query=lambda _: "?limit=200"),
    Step(
        operation="GET /users/{id}",
        path=lambda made: {"id": made.run.first.user_id},
        check=lambda made, answer: answer.email == made.run.first.email,
    ),
    Step(
        operation="PUT /users/{id}/role",
        path=lambda made: {"id": made.user_id},
        body=lambda _: {"role": "manager"},
        varies=frozenset({"id", "email", "created_at", "updated_at"}),
        check=lambda _, answer: answer.role == "manager",
    ),
    Step(operation="DELETE /users/{id}", path=lambda made: {"id": made.user_id}),
]

MEDIA = [
    Step(
        operation="POST /media/upload",
        body=lambda _: {
            "file_name": "validate.csv",
            "content_type": "text/csv",
            "data_base64": base64.b64encode(CONTENT).decode(),
        },
        varies=frozenset({"id", "created_at"}),
        check=lambda _, answer: answer.size == len(CONTENT),
        learn=_learn_item,
        makes=lambda made: (f"/media/items/{made.item}", f"the file {made.item}"),
    ),
    _bad("POST /media/upload"),
    Step(operation="GET /media/items", query=lambda _: "?limit=200"),
    Step(operation="GET /media/items/{id}", path=lambda made: {"id": made.run.first.item}),
    Step(
        operation="GET /media/items/{id}/download",
        path=lambda made: {"id": made.item},
        varies=frozenset({"url", "expires_at"}),
        learn=_learn_link,
    ),
    Step(  # with Google Cloud Storage, the link leads there
        operation="GET /media/objects/{organization}/{owner}/{id}/{name}",
        path=lambda made: {
            "organization": f"org_{made.run.org_id}",
            "owner": "user_0",
            "id": made.item,
            "name": "none",
        },
        url=lambda made: made.link,
        check=lambda _, content: content == CONTENT,
    ),
    Step(operation="DELETE /media/items/{id}", path=lambda made: {"id": made.item}),
]

TIMESERIES = [
    Step(
        operation="POST /timeseries/buckets",
        body=lambda made: {"bucket": made.bucket, "retention_seconds": 3600},
        varies=frozenset({"bucket", "created_at"}),
        check=lambda made, answer: answer.bucket == made.bucket,
        makes=lambda made: (f"/timeseries/buckets/{made.bucket}", f"the bucket {made.bucket}"),
    ),
    Step(operation="GET /timeseries/buckets", check=lambda _, answer: len(answer.buckets) > 0),
    Step(
        operation="POST /timeseries/write",
        note=f"{BATCH.points} points",
        body=lambda made: {"bucket": made.bucket, "points": points(BATCH, made.run.first_point)},
        check=lambda _, answer: answer.success and answer.inserted == BATCH.points,
    ),
    Step(
        operation="POST /timeseries/write",
        note=f"{LINES.points} lines",
        query=lambda made: f"?bucket={made.bucket}&precision=ns",
        body=lambda made: lines(LINES, made.run.first_point),
        media_type="text/plain",
        check=lambda _, answer: answer.success and answer.inserted == LINES.points,
    ),
    Step(
        operation="POST /timeseries/api/v2/write",
        note=f"{GZIP.points} lines in gzip",
        query=lambda made: f"?bucket={made.bucket}&org=org_{made.run.org_id}&precision=ns",
        body=lambda made: zipped_lines(GZIP, made.run.first_point),
        media_type="text/plain",
        headers=lambda _: {"Content-Encoding": "gzip"},
    ),
    Step(
        operation="POST /timeseries/query",
        note="windows",
        body=lambda made: {**_LONG, "bucket": made.bucket, "fields": ["bpm"], "aggregate": "count", "window": "1s"},
        check=lambda _, answer: sum(row.value for row in answer.results) == POINTS,
    ),
    Step(
        operation="POST /timeseries/query",
        note=f"{MAX_RESULTS} values",
        body=lambda made: {**_LONG, "bucket": made.bucket},
        check=lambda made, answer: check_all(made.run.first_point, answer.results) and answer.count == MAX_RESULTS,
    ),
    _bad("POST /timeseries/query"),
    Step(operation="DELETE /timeseries/buckets/{bucket}", path=lambda made: {"bucket": made.bucket}),
]

AUDIT = [
    Step(
        operation="POST /audit/events",
        body=lambda made: {
            "actor": "validate",
            "action": made.run.action,
            "service": "gateway",
            "event_id": made.event,
            "occurred_at": made.run.time,
        },
        varies=frozenset({"id"}),
        check=lambda made, answer: answer.id == made.event,
    ),
    _bad("POST /audit/events"),
    Step(
        operation="GET /audit/events",
        query=lambda made: f"?limit=5&action={made.run.action}",
        check=lambda made, answer: {item.id for item in answer.items} == {one.event for one in made.run.made.values()},
    ),
    Step(
        operation="GET /audit/verify",
        varies=frozenset({"events", "first_sequence", "last_sequence", "head_hash"}),
        check=lambda _, answer: answer.valid,
        again=frozenset({429, 503}),
    ),
    Step(
        operation="GET /audit/export",
        check=lambda _, beginning: isinstance(json.loads(beginning.partition(b"\n")[0]), dict),
        stream=True,
    ),
]

GATEWAY = [
    Step(operation="GET /gateway/openapi.json", check=lambda _, content: "paths" in json.loads(content)),
    Step(operation="GET /gateway/docs", check=lambda _, content: b"<html" in content),
    Step(operation="GET /gateway/nonsense", note="wrong on purpose", bad=404),
]

STEPS = [*_of_every_service(), *GATEWAY, *AUTH, *ORGANIZATION, *USER, *MEDIA, *TIMESERIES, *AUDIT]
