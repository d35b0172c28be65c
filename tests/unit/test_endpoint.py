"""The kit's endpoint mechanism, with a small service made for the purpose."""

import gzip
import threading
import uuid

import msgspec
import pytest
from flask import Response
from flask.testing import FlaskClient
from lxml import etree

from heartguard import audit
from heartguard.app import create_service_app
from heartguard.context import Client
from heartguard.endpoint import Reply, query_of
from heartguard.endpoints import Endpoints
from heartguard.errors import Invalid, Unavailable
from heartguard.models.auth_token import Introspection, IntrospectRequest, RoleDescription, Roles
from heartguard.models.base import Query
from heartguard.models.common import Detail, Health
from heartguard.parameters import client as current_client
from heartguard.policy import Audience
from heartguard.settings import ServiceSettings, load
from heartguard.tokens import Claims, KeyRing, Tokens

SETTINGS = load(ServiceSettings, {"JWT_SECRET": "k" * 32})
TOKENS = Tokens(KeyRing.from_secret(SETTINGS.jwt_secret))


class Page(Query):
    limit: int = 50


class Greeting:
    words = "ok"


def read_plain(body: bytes, query: Query) -> IntrospectRequest:
    return IntrospectRequest(token=body.decode())


def sample() -> Endpoints:
    endpoints = Endpoints("timeseries")

    @endpoints.post(
        "/timeseries/echo", audience=Audience.PUBLIC, status=201, max_body=100, also={"text/plain": read_plain}
    )
    def echo(request: IntrospectRequest) -> Introspection:
        return Introspection(active=True, sid=request.token)

    @endpoints.get("/timeseries/things/{number}/{name}", audience=Audience.SIGNED_IN)
    def thing(number: int, name: str, caller: Claims, page: Page) -> Introspection:
        return Introspection(active=True, org_id=number, sid=name, sub=caller.sub, exp=page.limit)

    @endpoints.get("/timeseries/whoami", audience=Audience.PUBLIC, etag=True)
    def whoami(caller: Claims | None, client: Client, greeting: Greeting) -> Introspection:
        return Introspection(active=caller is not None, sid=client.ip, jti=client.user_agent, role=greeting.words)

    @endpoints.put("/timeseries/fault", audience=Audience.MANAGER)
    def fault() -> None:
        raise RuntimeError("the secret inside")

    @endpoints.get("/timeseries/away", audience=Audience.PUBLIC)
    def away() -> None:
        raise Unavailable

    @endpoints.get("/timeseries/invalid", audience=Audience.PUBLIC)
    def invalid() -> Roles:
        raise Invalid([Detail(path="/a/0", message="is bad"), Detail(path="/b", message="is <worse>")])

    @endpoints.get("/timeseries/reply", audience=Audience.SERVICE)
    def reply() -> Reply[Roles]:
        return Reply(Roles(roles=[RoleDescription(name="user", description="d")]), 202, {"ETag": '"1"'})

    @endpoints.get("/timeseries/raw", audience=Audience.PUBLIC)
    def raw() -> Response:
        return Response("plain", content_type="text/plain")

    state_numbered(endpoints)
    state_audited(endpoints)
    return endpoints


def state_numbered(endpoints: Endpoints) -> None:
    @endpoints.get("/timeseries/things/{number}", audience=Audience.PUBLIC)
    def known_thing(number: int) -> Introspection:
        return Introspection(active=True, exp=number)

    @endpoints.delete("/timeseries/things/{number}", audience=Audience.ADMIN, audit="THING_DELETE")
    def drop(number: int) -> None:
        return None


def state_audited(endpoints: Endpoints) -> None:
    @endpoints.post("/timeseries/known/{key}", audience=Audience.PUBLIC, status=201, audit="KNOWN")
    def known(key: uuid.UUID, caller: Claims | None) -> Introspection:
        return Introspection(active=True, sid=str(key))

    @endpoints.post("/timeseries/unknown", audience=Audience.PUBLIC, audit="UNKNOWN")
    def unknown() -> None:
        return None


class Notes:
    """Takes events, as long as it is ``able``."""

    def __init__(self) -> None:
        self.events: list[audit.Event] = []
        self.able = True

    def put(self, *events: audit.Event) -> None:
        self.check()
        self.events += events

    def check(self) -> None:
        if not self.able:
            raise Unavailable


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def client(notes: Notes) -> FlaskClient:
    checks = {"store": lambda: None}
    app = create_service_app(sample(), SETTINGS, TOKENS, resources=[Greeting()], checks=checks, trail=notes)
    return app.test_client()


def token(role: str = "user", user_id: int = 5) -> dict[str, str]:
    signed, _ = TOKENS.issue(sub=str(user_id), role=role, org_id=3, sid="s", typ="access", seconds=60)
    return {"Authorization": f"Bearer {signed}"}


def code(response: object) -> str:
    return msgspec.json.decode(response.data)["error"]["code"]  # type: ignore[attr-defined,no-any-return]


def test_json_in_and_xml_out(client: FlaskClient) -> None:
    answer = client.post("/timeseries/echo", json={"token": "a<b"}, headers={"Accept": "application/xml"})
    assert answer.status_code == 201
    assert answer.content_type == "application/xml"
    root = etree.fromstring(answer.data)
    assert (root.tag, root.findtext("active"), root.findtext("sid")) == ("Introspection", "true", "a<b")


def test_xml_in_and_json_out(client: FlaskClient) -> None:
    body = b"<IntrospectRequest><token>a</token></IntrospectRequest>"
    answer = client.post("/timeseries/echo", data=body, content_type="text/xml; charset=utf-8")
    assert answer.json == {"active": True, "sid": "a"}
    assert "Accept" in answer.headers["Vary"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_another_media_type_where_the_endpoint_states_one(client: FlaskClient) -> None:
    assert client.post("/timeseries/echo", data=b"x", content_type="text/plain").json == {"active": True, "sid": "x"}
    wrong = client.post("/timeseries/echo", data=b"x", content_type="text/plain; charset=latin-1")
    assert (wrong.status_code, code(wrong)) == (415, "TS_415")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"", {"Content-Type": "application/json"}, 400),
        (b'{"token":', {"Content-Type": "application/json"}, 400),
        (b"\xff", {"Content-Type": "application/json"}, 400),
        (b"[" * 5000, {"Content-Type": "application/json"}, 413),
        (b"<IntrospectRequest>", {"Content-Type": "application/xml"}, 400),
        (b"{}", {"Content-Type": "text/csv"}, 415),
        (b"{}", {}, 415),
        (b"{}", {"Content-Type": "application/json; charset=utf-16"}, 415),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "br"}, 415),
        (b"{}", {"Content-Type": "application/json"}, 422),
        (b'{"token":5}', {"Content-Type": "application/json"}, 422),
        (b'{"token":"a\\u0000"}', {"Content-Type": "application/json"}, 422),
        (b'{"token":"a","more":1}', {"Content-Type": "application/json"}, 422),
        (b'{"token":"' + b"a" * 200 + b'"}', {"Content-Type": "application/json"}, 413),
        (b"not gzip", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 400),
        (gzip.compress(b" " * 100_000, mtime=0), {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 413),
        (gzip.compress(b"{}", mtime=0)[:-3], {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0) + b"x", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 400),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "application/xml"])
def test_bad_bodies(client: FlaskClient, body: bytes, headers: dict[str, str], status: int, accept: str) -> None:
    answer = client.post("/timeseries/echo", data=body, headers={**headers, "Accept": accept})
    assert answer.status_code == status
    if accept == "application/json":
        assert code(answer) == f"TS_{status}"
    else:
        assert etree.fromstring(answer.data).findtext("code") == f"TS_{status}"


def test_a_body_that_was_cut_short(client: FlaskClient) -> None:
    cut = {"CONTENT_LENGTH": "9", "wsgi.input_terminated": True}
    answer = client.post("/timeseries/echo", data=b"x", content_type="text/plain", environ_overrides=cut)
    assert (answer.status_code, code(answer)) == (400, "TS_400")


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("coding", ["chunked", "identity"])
def test_a_body_without_a_length(client: FlaskClient, method: str, coding: str) -> None:
    answer = client.open("/timeseries/echo", method=method, data=b"x", headers={"Transfer-Encoding": coding})
    assert (answer.status_code, code(answer)) == (411, "TS_411")


def test_gzip_is_unpacked(client: FlaskClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client.post("/timeseries/echo", data=gzip.compress(b'{"token":"a"}'), headers=headers)
    assert answer.json == {"active": True, "sid": "a"}


def test_every_violation_is_listed_with_its_path(client: FlaskClient) -> None:
    answer = client.post("/timeseries/echo", json={"more": 1, "token": 5})
    paths = {detail["path"] for detail in answer.json["error"]["details"]}
    assert {"/token", "/more"} <= paths or {"/token", ""} <= paths


def test_path_and_query_parameters(client: FlaskClient) -> None:
    answer = client.get("/timeseries/things/7/left?limit=9", headers=token())
    assert answer.json == {"active": True, "org_id": 7, "sid": "left", "sub": "5", "exp": 9}


def test_a_query_string_where_none_is_known(client: FlaskClient) -> None:
    answer = client.post("/timeseries/echo?token=b", json={"token": "a"})
    assert (answer.status_code, answer.json["error"]["details"][0]["path"]) == (422, "?token")


@pytest.mark.parametrize("query", ["limit=x", "unknown=1", "limit=1&limit=2"])
def test_bad_query_parameters(client: FlaskClient, query: str) -> None:
    assert client.get(f"/timeseries/things/7/left?{query}", headers=token()).status_code == 422


def test_authentication_comes_first_and_authorization_second(client: FlaskClient) -> None:
    anonymous = client.delete("/timeseries/things/7")
    assert (anonymous.status_code, code(anonymous)) == (401, "TS_401")
    assert anonymous.headers["WWW-Authenticate"] == "Bearer"
    assert client.delete("/timeseries/things/7", headers={"Authorization": "Basic eA=="}).status_code == 401
    for role, status in {"user": 403, "manager": 403, "service": 403, "admin": 204}.items():
        assert client.delete("/timeseries/things/7", headers=token(role)).status_code == status


def test_a_caller_can_be_optional_but_never_false(client: FlaskClient) -> None:
    headers = {"X-Forwarded-For": "192.0.2.1", "User-Agent": "test"}
    assert client.get("/timeseries/whoami", headers=headers).json == {
        "active": False, "sid": "192.0.2.1", "jti": "test", "role": "ok",
    }  # fmt: skip
    assert client.get("/timeseries/whoami", headers=token()).json["active"] is True
    assert client.get("/timeseries/whoami", headers={"Authorization": "Bearer x"}).status_code == 401


def test_no_content_has_no_type(client: FlaskClient) -> None:
    assert "Content-Type" not in client.delete("/timeseries/things/7", headers=token("admin")).headers


def test_an_answer_that_the_client_has_already_is_not_sent_again(client: FlaskClient) -> None:
    etag = client.get("/timeseries/whoami").headers["ETag"]
    same = client.get("/timeseries/whoami", headers={"If-None-Match": etag})
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
    assert client.get("/timeseries/whoami", headers={**token(), "If-None-Match": etag}).status_code == 200
    assert client.get("/timeseries/whoami", headers={"Accept": "text/xml", "If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("accept", ["application/json", "application/xml"])
def test_reading_only_what_was_read_before(client: FlaskClient, accept: str) -> None:
    """``If-Match`` of a ``GET``: what fails is an error like any other, not the resource with another status."""
    asked = {"Accept": accept}
    etag = client.get("/timeseries/whoami", headers=asked).headers["ETag"]
    for wanted in (etag, "*", f'"another", {etag}'):
        assert client.get("/timeseries/whoami", headers={**asked, "If-Match": wanted}).status_code == 200
    failed = client.get("/timeseries/whoami", headers={**asked, "If-Match": '"another"'})
    assert (failed.status_code, failed.mimetype) == (412, accept)
    assert b"TS_412" in failed.data
    assert b"active" not in failed.data


def test_a_refresh_token_is_no_access_token(client: FlaskClient) -> None:
    refresh, _ = TOKENS.issue(sub="5", role="admin", org_id=3, sid="s", typ="refresh", seconds=60)
    assert client.delete("/timeseries/things/7", headers={"Authorization": f"Bearer {refresh}"}).status_code == 401


def test_replies_carry_status_and_headers(client: FlaskClient) -> None:
    answer = client.get("/timeseries/reply", headers=token("service"))
    assert (answer.status_code, answer.headers["ETag"]) == (202, '"1"')
    assert client.get("/timeseries/raw").data == b"plain"


def test_failures_of_our_own_say_nothing_of_the_inside(client: FlaskClient, capfd: pytest.CaptureFixture[str]) -> None:
    answer = client.put("/timeseries/fault", headers={**token("manager"), "X-Request-ID": "find-me"})
    assert (answer.status_code, code(answer)) == (500, "TS_500")
    assert b"secret" not in answer.data
    assert answer.json["error"]["request_id"] == "find-me"


def test_unavailable_says_when_to_come_back(client: FlaskClient) -> None:
    answer = client.get("/timeseries/away")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_unknown_routes_and_wrong_methods(client: FlaskClient) -> None:
    unknown = client.get("/timeseries/nowhere", headers={"Accept": "application/xml"})
    assert etree.fromstring(unknown.data).findtext("code") == "TS_404"
    wrong = client.put("/timeseries/echo")
    assert (wrong.status_code, code(wrong), wrong.headers["Allow"]) == (405, "TS_405", "POST")
    assert client.get("/timeseries/things/x/left", headers=token()).status_code == 404


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("number", ["2147483648", "9" * 10, "9" * 40, "9" * 5000], ids=len)
def test_a_number_that_can_be_no_id(client: FlaskClient, method: str, number: str) -> None:
    """404 by every method: Werkzeug's own limit makes a 405 of it for all but one."""
    answer = client.open(f"/timeseries/things/{number}", method=method, headers=token("admin"))
    assert (answer.status_code, code(answer)) == (404, "TS_404")


def test_the_largest_id(client: FlaskClient) -> None:
    assert client.get(f"/timeseries/things/{2**31 - 1}").json == {"active": True, "exp": 2**31 - 1}


def test_nothing_acceptable(client: FlaskClient) -> None:
    answer = client.get("/timeseries/whoami", headers={"Accept": "text/csv"})
    assert (answer.status_code, code(answer)) == (406, "TS_406")


def test_errors_in_xml_are_escaped_and_list_their_details(client: FlaskClient) -> None:
    answer = client.get("/timeseries/invalid", headers={"Accept": "text/xml"})
    details = etree.fromstring(answer.data).findall("details/detail")
    assert [(d.findtext("path"), d.findtext("message")) for d in details] == [("/a/0", "is bad"), ("/b", "is <worse>")]


def test_request_ids(client: FlaskClient) -> None:
    assert client.get("/timeseries/raw", headers={"X-Request-ID": "a.b-c_D"}).headers["X-Request-ID"] == "a.b-c_D"
    made = client.get("/timeseries/raw", headers={"X-Request-ID": "a b"}).headers["X-Request-ID"]
    assert uuid.UUID(made)


def test_metrics_know_no_invented_method(client: FlaskClient) -> None:
    client.open(
        "/timeseries/raw", method="INVENTED", headers={"traceparent": "00-" + "a" * 32 + "-00f067aa0ba902b7-01"}
    )
    exposed = client.get("/timeseries/metrics").data
    assert b'method="other"' in exposed
    assert b"INVENTED" not in exposed


def test_health_readiness_and_metrics(client: FlaskClient) -> None:
    health = msgspec.convert(client.get("/timeseries/health").json, Health)
    assert (health.status, health.service) == ("ok", "timeseries")
    ready = client.get("/timeseries/ready").json
    assert (ready["status"], ready["checks"][0]["name"]) == ("ready", "store")
    assert b'heartguard_requests_total{method="GET"' in client.get("/timeseries/metrics").data


def test_a_dependency_that_fails_or_hangs_makes_the_service_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartguard.probe.CHECK_TIMEOUT", 0.2)
    release = threading.Event()
    checks = {"failing": lambda: 1 // 0, "hanging": lambda: release.wait(10), "fine": lambda: None}
    app = create_service_app(sample(), SETTINGS, TOKENS, resources=[Greeting()], checks=checks, trail=Notes())
    answer = app.test_client().get("/timeseries/ready")
    release.set()
    assert answer.status_code == 503
    assert {c["name"]: c["status"] for c in answer.json["checks"]} == {
        "failing": "failed", "hanging": "failed", "fine": "ok",
    }  # fmt: skip


def test_a_parameter_that_nothing_provides_is_found_at_start() -> None:
    with pytest.raises(TypeError, match=r"whoami: nothing provides the parameter greeting"):
        create_service_app(sample(), SETTINGS, TOKENS, trail=Notes())


def test_a_reader_says_which_query_string_it_knows() -> None:
    with pytest.raises(TypeError, match="has no parameter that is a Query"):
        query_of(lambda body, _: IntrospectRequest(token=body.decode()))


def test_a_query_string_beside_a_further_media_type(client: FlaskClient) -> None:
    answer = client.post("/timeseries/echo?known=0", data=b"plain", content_type="text/plain")
    assert (answer.status_code, answer.json["error"]["details"][0]["path"]) == (422, "?")


def test_a_response_of_a_stated_media_type_is_given_whatever_is_asked_for() -> None:
    endpoints = Endpoints("timeseries")

    @endpoints.get("/timeseries/lines", audience=Audience.PUBLIC, produces="text/plain", etag=True)
    def lines() -> Response:
        return Response("plain", content_type="text/plain")

    client = create_service_app(endpoints, SETTINGS, TOKENS).test_client()
    answer = client.get("/timeseries/lines", headers={"Accept": "image/png"})
    assert (answer.status_code, answer.data) == (200, b"plain")
    again = client.get("/timeseries/lines", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_application_knows_its_endpoints(client: FlaskClient) -> None:
    stated = {(e.method, e.path) for e in client.application.extensions["heartguard.endpoints"]}
    assert ("GET", "/timeseries/health") in stated
    assert ("POST", "/timeseries/echo") in stated


def test_a_uuid_in_the_path(client: FlaskClient) -> None:
    key = uuid.uuid4()
    answer = client.post(f"/timeseries/known/{str(key).upper()}")
    assert (answer.status_code, answer.json) == (201, {"active": True, "sid": str(key)})
    for other in ("7", "x", str(key)[:-1], f"{key}0"):
        missing = client.post(f"/timeseries/known/{other}")
        assert (missing.status_code, code(missing)) == (404, "TS_404")


def test_the_audit_trail_hears_who_did_it(client: FlaskClient, notes: Notes) -> None:
    path = f"/timeseries/known/{uuid.uuid4()}"
    client.post(path, headers={"X-Request-ID": "asked-for"})
    client.post(path, headers=token(user_id=5))
    client.delete("/timeseries/things/7", headers=token("admin", user_id=6))
    client.post("/timeseries/unknown")
    heard = [(event.action, event.actor, event.org_id, event.service, event.outcome) for event in notes.events]
    assert heard == [
        ("KNOWN", "anonymous", audit.PLATFORM, "timeseries", "success"),
        ("KNOWN", "5", 3, "timeseries", "success"),
        ("THING_DELETE", "6", 3, "timeseries", "success"),
        ("UNKNOWN", "anonymous", audit.PLATFORM, "timeseries", "success"),
    ]
    assert notes.events[0].request_id == "asked-for"


def test_the_audit_trail_hears_who_was_refused(client: FlaskClient, notes: Notes) -> None:
    assert client.delete("/timeseries/things/7").status_code == 401
    assert client.delete("/timeseries/things/7", headers=token("user", user_id=6)).status_code == 403
    assert client.delete("/timeseries/things/x").status_code == 404
    heard = [(event.action, event.actor, event.org_id, event.outcome, event.payload) for event in notes.events]
    asked = {"method": "DELETE", "route": "/timeseries/things/{number}", "path": "/timeseries/things/7"}
    assert heard == [
        ("ACCESS_DENIED", "anonymous", audit.PLATFORM, "denied", {**asked, "status": 401}),
        ("ACCESS_DENIED", "6", 3, "denied", {**asked, "status": 403}),
    ]


def test_what_the_audit_trail_cannot_take_does_not_happen(client: FlaskClient, notes: Notes) -> None:
    notes.able = False
    assert client.delete("/timeseries/things/7", headers=token("admin")).status_code == 503
    assert client.delete("/timeseries/things/7", headers=token("user")).status_code == 503
    assert client.get("/timeseries/whoami").status_code == 200


def test_a_client_comes_with_cookies_and_says_whether_it_was_safe(client: FlaskClient) -> None:
    with client.application.test_request_context(headers={"Cookie": "a=b; c=d", "X-Forwarded-Proto": "https"}):
        known = current_client()
    assert (known.secure, dict(known.cookies)) == (True, {"a": "b", "c": "d"})
    assert "b" not in repr(known)
    with client.application.test_request_context(headers={"X-Forwarded-Proto": "http"}):
        assert not current_client().secure
