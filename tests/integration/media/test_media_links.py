"""Links: who has one gets the file, for as long as it says; nobody can make one, or change it."""

import re
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask

from .conftest import PNG, Caller, Fetched, mender_of, store_of
from .v4 import Refused, verify


@pytest.fixture
def here(local: Flask, org: int) -> Caller:
    """Somebody of whose files the service itself keeps."""
    return Caller(local, org)


@pytest.fixture
def there(gcs: Flask, org: int) -> Caller:
    """Somebody whose files are in Google Cloud Storage."""
    return Caller(gcs, org)


def test_a_link_works_up_to_its_second(here: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
    clock: Callable[[], float] = lambda: now.timestamp()  # noqa: E731
    monkeypatch.setattr(store_of(here.app), "_clock", clock)
    link = here.link(here.stored())
    assert link["method"] == "GET"
    assert link["expires_at"] == "2026-01-02T03:19:06Z"  # 900 s, and less than one second more
    expiry = datetime.fromisoformat(link["expires_at"])
    now = expiry
    assert here.fetch(link["url"]).status == 200
    now = expiry + timedelta(milliseconds=1)
    assert here.fetch(link["url"]).status == 403
    now = expiry + timedelta(seconds=1)
    gone = here.fetch(link["url"])
    assert (gone.status, b"MEDIA_403" in gone.data, PNG in gone.data) == (403, True, False)


def test_a_link_leads_to_where_the_client_came(here: Caller) -> None:
    id_ = here.stored()
    forwarded = {"X-Forwarded-Host": "api.example.org:8443", "X-Forwarded-Proto": "https"}
    answer = here.send("GET", f"/media/items/{id_}/download", headers=forwarded)
    assert answer.json is not None
    assert answer.json["url"].startswith(f"https://api.example.org:8443/media/objects/org_{here.org_id}/user_1/{id_}/")


def test_no_part_of_a_link_can_be_changed(here: Caller) -> None:
    own, other = here.link(here.stored())["url"], here.link(here.stored())["url"]
    assert here.fetch(own).status == 200
    address, _, query = own.partition("?")
    said = dict(urllib.parse.parse_qsl(query))
    parts = address.rsplit("/", 4)
    changes = [
        {**said, "expires": str(int(said["expires"]) + 1)},
        {**said, "expires": "9999999999999999999"},
        {**said, "content_type": "text/html"},
        {**said, "file_name": "a.html"},
        {**said, "signature": said["signature"][:-1]},
        {**said, "signature": ""},
        {**said, "signature": "é"},
        {key: value for key, value in said.items() if key != "signature"},
        {},
    ]
    for change in changes:
        assert here.fetch(f"{address}?{urllib.parse.urlencode(change)}").status == 403, change
    for place, value in enumerate([f"org_{here.org_id + 1}", "user_2", other.rsplit("/", 2)[1], "b.png"], 1):
        changed = [*parts[:place], value, *parts[place + 1 :]]
        assert here.fetch(f"{'/'.join(changed)}?{query}").status == 403, value
    assert here.fetch(f"{address}?{query}&download=1").status == 422


def test_a_link_of_another_secret_is_worth_nothing(here: Caller, tmp_path: Path) -> None:
    from services.media.src.local_store import LocalStore
    from services.media.src.names import ObjectName
    from services.media.src.signing import LinkSigner
    from services.media.src.store import Download

    id_ = here.stored()
    name = ObjectName(f"org_{here.org_id}", "user_1", id_, "a.png")
    forger = LocalStore(tmp_path, LinkSigner(b"another secret"), 900)
    forged = forger.sign(Download(name=name, file_name="a.png", content_type="image/png", origin="http://localhost"))
    assert here.fetch(forged.url).status == 403


def test_a_file_is_saved_and_does_nothing(here: Caller) -> None:
    answer = here.fetch(here.link(here.stored(file_name="\"corazón;'.png"))["url"], Accept="image/png")
    assert answer.status == 200
    assert answer.headers["content-type"] == "image/png"
    assert (
        answer.headers["content-disposition"]
        == "attachment; filename=\"corazon.png\"; filename*=UTF-8''%22coraz%C3%B3n%3B%27.png"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("asked", "status", "begin", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=60-", 206, 60, len(PNG)),
        ("bytes=-5", 206, len(PNG) - 5, len(PNG)),
        ("bytes=-500", 206, 0, len(PNG)),
        ("bytes=0-99999", 206, 0, len(PNG)),
        (f"bytes={len(PNG)}-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=0-1,5-6", 200, 0, len(PNG)),
        ("bytes=5-1", 200, 0, len(PNG)),
        ("lines=1-2", 200, 0, len(PNG)),
        ("bytes=a-b", 200, 0, len(PNG)),
    ],
)
def test_ranges(here: Caller, asked: str, status: int, begin: int, end: int) -> None:
    answer = here.fetch(here.link(here.stored())["url"], Range=asked)
    assert answer.status == status
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(PNG)}"
        return
    assert answer.data == PNG[begin:end]
    assert answer.headers["accept-ranges"] == "bytes"
    assert int(answer.headers["content-length"]) == end - begin
    expected = f"bytes {begin}-{end - 1}/{len(PNG)}" if status == 206 else None
    assert answer.headers.get("content-range") == expected


def test_conditions(here: Caller) -> None:
    url = here.link(here.stored())["url"]
    etag = here.fetch(url).headers["etag"]
    assert here.fetch(url, If_None_Match=etag).status == 304
    assert here.fetch(url, Range="bytes=0-3", If_Range=etag).data == PNG[:4]
    whole = here.fetch(url, Range="bytes=0-3", If_Range='"another"')
    assert (whole.status, whole.data) == (200, PNG)
    assert here.fetch(url, If_Match="*").data == here.fetch(url, If_Match=etag).data == PNG
    other = here.fetch(url, If_Match='"another"')
    assert other.status == 412
    assert b'"code":"MEDIA_412"' in other.data


def test_head(here: Caller) -> None:
    url = here.link(here.stored())["url"]
    answer = here.fetch(url, "HEAD")
    assert (answer.status, answer.data) == (200, b"")
    assert int(answer.headers["content-length"]) == len(PNG)


def test_a_link_cannot_leave_the_directory(here: Caller) -> None:
    outside = mender_of(here.app)._incoming.parent.parent / "outside.txt"
    outside.write_text("secret")
    for path in (
        "org_1/user_1/..%2f..%2f..%2f..%2foutside.txt/a",
        "org_1/user_1/../outside.txt",
        "../../../outside.txt",
    ):
        found: Fetched = here.fetch(f"http://localhost/media/objects/{path}?expires=9999999999")
        assert found.status in {403, 404}
        assert b"secret" not in found.data


def test_a_symbolic_link_is_not_followed(here: Caller, tmp_path: Path) -> None:
    url = here.link(here.stored())["url"]
    [file] = (mender_of(here.app)._incoming.parent / "objects" / f"org_{here.org_id}").glob("*/*/*")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    file.unlink()
    file.symlink_to(secret)
    assert here.fetch(url).status == 503


def test_with_the_other_store_nothing_is_served_here(here: Caller, there: Caller) -> None:
    url = here.link(here.stored())["url"]
    with there.app.test_client() as client, client.get(url) as answer:
        assert answer.status_code == 404


# Google Cloud Storage: what the server of the tests does not look at, the verifier does


def test_links_to_google_cloud_storage_are_signed(there: Caller, service_account: Path) -> None:
    link = there.link(there.stored(file_name="corazón.png"))
    now = datetime.now(UTC)
    expiry = datetime.fromisoformat(link["expires_at"])
    assert timedelta(seconds=898) <= expiry - now <= timedelta(seconds=900)
    for moment in (now, expiry):
        verify(link["url"], service_account, "GET", moment)
    for moment in (expiry + timedelta(seconds=1), now - timedelta(hours=1)):
        with pytest.raises(Refused):
            verify(link["url"], service_account, "GET", moment)
    for method in ("PUT", "DELETE", "POST", "HEAD"):
        with pytest.raises(Refused):
            verify(link["url"], service_account, method, now)
    for change in (
        re.sub("X-Goog-Expires=900", "X-Goog-Expires=9000", link["url"]),
        re.sub(r"/user_1/", "/user_2/", link["url"]),
        re.sub("attachment", "inline", link["url"]),
        link["url"].replace("X-Goog-SignedHeaders=host", "X-Goog-SignedHeaders="),
    ):
        assert change != link["url"]
        with pytest.raises(Refused):
            verify(change, service_account, "GET", now)


def test_google_cloud_storage_serves_the_file_as_one_to_save(there: Caller) -> None:
    url = there.link(there.stored(file_name="corazón.png"))["url"]
    said = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert said["response-content-disposition"] == [
        "attachment; filename=\"corazon.png\"; filename*=UTF-8''coraz%C3%B3n.png"
    ]
    answer = there.fetch(url)
    assert (answer.data, answer.headers["content-type"]) == (PNG, "image/png")
