"""Files are stored, listed, linked to and removed; nobody sees another's. On both stores."""

import gzip
import hashlib
import json
from base64 import b64encode
from typing import Any

import pytest
from flask import Flask
from lxml import etree
from sqlalchemy import text

from heartguard.database import Database

from .conftest import PNG, Caller, form, objects_of, rows_of, spooled

XML = "application/xml"


def test_the_life_of_a_file(admin: Caller, database: Database) -> None:
    made = admin.upload(PNG, file_name="corazón ❤.png")
    assert made.status_code == 201, made.text
    assert made.json is not None
    id_ = made.json["id"]
    assert made.json | {"created_at": ""} == {
        "id": id_,
        "file_name": "corazón ❤.png",
        "content_type": "image/png",
        "size": len(PNG),
        "sha256": hashlib.sha256(PNG).hexdigest(),
        "owner_id": 1,
        "created_at": "",
    }
    assert admin.items() == [id_]
    assert admin.send("GET", f"/media/items/{id_}").json == made.json
    assert objects_of(admin.app, admin.org_id) == [f"org_{admin.org_id}/user_1/{id_}/corazon.png"]
    link = admin.link(id_)
    answer = admin.fetch(link["url"])
    assert (answer.status, answer.data) == (200, PNG)
    assert admin.send("DELETE", f"/media/items/{id_}").status_code == 204
    assert admin.send("DELETE", f"/media/items/{id_}").status_code == 404
    assert admin.send("GET", f"/media/items/{id_}").status_code == 404
    assert admin.send("GET", f"/media/items/{id_}/download").status_code == 404
    assert admin.fetch(link["url"]).status == 404
    assert admin.items() == []
    assert objects_of(admin.app, admin.org_id) == rows_of(database, admin.org_id) == []


def test_the_trail_tells_of_each_change_with_it(admin: Caller, superuser: Any) -> None:
    id_ = admin.as_user(7).stored()
    assert admin.upload(b"no picture").status_code == 415
    admin.link(id_)
    assert admin.send("DELETE", f"/media/items/{id_}").status_code == 204
    assert admin.send("DELETE", f"/media/items/{id_}").status_code == 404
    with superuser.transaction() as tx:
        rows = tx.execute(text("SELECT event FROM heartguard_core.audit_outbox ORDER BY id"))
        events = [json.loads(row.event) for row in rows]
    uploaded, deleted = [event for event in events if event["org_id"] == admin.org_id]
    said = {"item": id_, "owner": "user_7"}
    assert (deleted["action"], deleted["actor"], deleted["payload"]) == ("MEDIA_DELETE", "1", said)
    assert (uploaded["action"], uploaded["actor"]) == ("MEDIA_UPLOAD", "7")
    assert uploaded["payload"] == {
        **said, "content_type": "image/png", "size": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()
    }  # fmt: skip
    (downloaded,) = [event for event in spooled(admin.app) if event.org_id == admin.org_id]
    assert (downloaded.action, downloaded.actor, downloaded.payload) == ("MEDIA_DOWNLOAD", "1", said)


def as_json(content: bytes) -> dict[str, Any]:
    return {"json": {"file_name": "a.png", "content_type": "image/png", "data_base64": b64encode(content).decode()}}


def as_xml(content: bytes) -> dict[str, Any]:
    root = etree.Element("MediaUpload")
    for name, value in as_json(content)["json"].items():
        etree.SubElement(root, name).text = value
    return {"data": etree.tostring(root), "content_type": XML}


def as_form(content: bytes) -> dict[str, Any]:
    return form({"file": ("a.png", content, "image/png")})


def as_gzip(content: bytes) -> dict[str, Any]:
    sent = as_xml(content)
    return {**sent, "data": gzip.compress(sent["data"]), "headers": {"Content-Encoding": "gzip"}}


LARGE = PNG[:-12] + bytes([0, 0x80, 0, 0]) + b"junk" + bytes(range(256)) * 0x8000 + b"sumz" + PNG[-12:]
"""A picture of 8 MiB and a bit, which both stores take in pieces."""


@pytest.mark.parametrize("asked", ["application/json", XML])
@pytest.mark.parametrize("content", [PNG, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("sent", [as_json, as_xml, as_form, as_gzip])
def test_every_way_in_means_the_same(admin: Caller, sent: Any, content: bytes, asked: str) -> None:
    options = sent(content)
    headers = {"Accept": asked, **options.pop("headers", {})}
    answer = admin.send("POST", "/media/upload", options.pop("json", None), headers=headers, **options)
    assert (answer.status_code, answer.mimetype) == (201, asked), answer.text
    [id_] = admin.items()
    assert id_ in answer.text
    item = admin.send("GET", f"/media/items/{id_}").json
    assert item is not None
    assert (item["file_name"], item["content_type"], item["size"]) == ("a.png", "image/png", len(content))
    assert item["sha256"] == hashlib.sha256(content).hexdigest()
    assert admin.fetch(admin.link(id_)["url"]).data == content


def test_a_declared_type_keeps_no_parameters(admin: Caller) -> None:
    answer = admin.upload(b"t,bpm\n1,72\n", "series.csv", "Text/CSV; charset=utf-8")
    assert answer.status_code == 201, answer.text
    assert answer.json is not None
    assert answer.json["content_type"] == "text/csv"


def test_users_see_their_own_and_managers_the_organizations(admin: Caller) -> None:
    user, other, manager = admin.as_user(7), admin.as_user(8), admin.as_user(9, "manager")
    own, theirs = user.stored(), other.stored()
    assert user.items() == user.items("?owner_id=7") == [own]
    assert manager.items() == admin.items() == [theirs, own]
    assert manager.items("?owner_id=7") == [own]
    assert manager.items("?owner_id=70") == []
    assert user.send("GET", "/media/items?owner_id=8").status_code == 403
    for path in (f"/media/items/{theirs}", f"/media/items/{theirs}/download"):
        assert user.send("GET", path).status_code == 404
        assert manager.send("GET", path).status_code == 200
    for somebody in (user, manager):
        assert somebody.send("DELETE", f"/media/items/{own}").status_code == 403
    assert admin.items() == [theirs, own]


def test_nobody_sees_another_organizations(admin: Caller, app: Flask, org: int) -> None:
    id_ = admin.stored()
    stranger = Caller(app, org + 500_000)
    assert stranger.items() == stranger.items("?owner_id=1") == []
    for method, path in (("GET", ""), ("GET", "/download"), ("DELETE", "")):
        assert stranger.send(method, f"/media/items/{id_}{path}").status_code == 404
    assert admin.items() == [id_]


@pytest.mark.parametrize("role", ["service", "none"])
def test_strangers_are_refused(admin: Caller, role: str) -> None:
    if role == "none":
        answer = admin.app.test_client().post("/media/upload", json={})
        assert answer.status_code == 401
    else:
        assert admin.as_user(1, role).send("GET", "/media/items").status_code == 403


def test_an_item_is_cached_by_its_etag(admin: Caller) -> None:
    path = f"/media/items/{admin.stored()}"
    first = admin.send("GET", path)
    again = admin.send("GET", path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_pages_are_stable_while_files_come_in(admin: Caller) -> None:
    ids = [admin.stored() for _ in range(5)]
    seen: list[str] = []
    query = "?limit=2"
    for _ in range(3):
        answer = admin.send("GET", f"/media/items{query}")
        assert answer.json is not None
        seen += [item["id"] for item in answer.json["items"]]
        admin.stored()
        if "next_cursor" not in answer.json:
            assert "Link" not in answer.headers
            break
        query = f"?limit=2&cursor={answer.json['next_cursor']}"
        assert answer.headers["Link"] == f'</media/items{query}>; rel="next"'
    assert seen == ids[::-1]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor=", "owner_id=0", "page=1"])
def test_pages_that_there_are_not(admin: Caller, query: str) -> None:
    assert admin.send("GET", f"/media/items?{query}").status_code == 422


@pytest.mark.parametrize("id_", ["x", "00000000-0000-0000-0000-000000000000"])
def test_items_that_there_are_not(admin: Caller, id_: str) -> None:
    for method, path in (("GET", ""), ("GET", "/download"), ("DELETE", "")):
        assert admin.send(method, f"/media/items/{id_}{path}").status_code == 404


def test_the_service_is_ready(admin: Caller) -> None:
    answer = admin.send("GET", "/media/ready")
    assert answer.json is not None
    assert (answer.status_code, {check["name"] for check in answer.json["checks"]}) == (200, {"postgres", "store"})
