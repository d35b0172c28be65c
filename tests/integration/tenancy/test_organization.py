"""The organization service: read, changed in part, changed only as it was read."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from lxml import etree

from ..callers import code, details
from .conftest import Person, Site


def test_everybody_reads_the_own_organization(site: Site, org: int) -> None:
    other = site.organization("Another")
    for role in ("user", "manager", "admin"):
        answer = site.person(org, role).get("/organization")
        assert answer.status_code == 200
        assert answer.json is not None
        assert (answer.json["id"], answer.json["name"], answer.json["policies"]) == (org, "Org", "")
        assert "timezone" not in answer.json
        assert "contact_email" not in answer.json
    assert site.person(other).get("/organization").json["name"] == "Another"  # type: ignore[index]


def test_managers_and_admins_change_what_they_give_and_nothing_else(site: Site, org: int) -> None:
    manager = site.person(org, "manager")
    first = manager.put("/organization", {"policies": "ISO27001", "timezone": "Europe/Madrid"})
    assert first.status_code == 200
    second = manager.put("/organization", {"name": "Clinic", "contact_email": "desk@clinic.example"}).json
    assert second is not None
    assert {name: second[name] for name in ("name", "policies", "contact_email", "timezone")} == {
        "name": "Clinic",
        "policies": "ISO27001",
        "contact_email": "desk@clinic.example",
        "timezone": "Europe/Madrid",
    }
    assert second["updated_at"] > second["created_at"]
    assert site.person(org).get("/organization").json == second
    policies = site.person(org).get("/organization/policies").json
    assert policies == {"policies": "ISO27001", "updated_at": second["updated_at"]}
    assert site.person(org).put("/organization", {"name": "x"}).status_code == 403


def test_xml_means_the_same(site: Site, org: int) -> None:
    body = b"<OrganizationUpdate><name>HeartGuard</name><policies>ISO27001</policies></OrganizationUpdate>"
    answer = site.person(org, "manager").put("/organization", body, Accept="application/xml")
    root = etree.fromstring(answer.data)
    assert (root.tag, root.findtext("name"), root.findtext("policies")) == ("Organization", "HeartGuard", "ISO27001")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ""),
        ({"name": "  "}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"policies": "x" * 1001}, "/policies"),
        ({"contact_email": "nobody"}, "/contact_email"),
        ({"timezone": "Europe/Nowhere"}, "/timezone"),
        ({"timezone": "../../etc/passwd"}, "/timezone"),
        ({"timezone": None}, "/timezone"),
        ({"name": "x", "org_id": 1}, "/org_id"),
    ],
)
def test_wrong_changes_are_named_and_nothing_is_changed(admin: Person, body: dict[str, Any], path: str) -> None:
    before = admin.get("/organization").json
    answer = admin.put("/organization", body)
    assert answer.status_code == 422
    assert list(details(answer)) == [path]
    assert admin.get("/organization").json == before


def test_what_was_read_need_not_be_sent_again(admin: Person) -> None:
    for accept in ("application/json", "application/xml"):
        for path in ("/organization", "/organization/policies"):
            etag = admin.get(path, Accept=accept).headers["ETag"]
            again = admin.get(path, Accept=accept, If_None_Match=etag)
            assert (again.status_code, again.data) == (304, b"")
            assert admin.get(path, Accept=accept, If_None_Match='"other"').status_code == 200


def test_it_is_changed_only_as_it_was_read(admin: Person) -> None:
    as_json, as_xml = (
        admin.get("/organization", Accept=f"application/{fmt}").headers["ETag"] for fmt in ("json", "xml")
    )
    assert as_json != as_xml
    changed = admin.put("/organization", {"name": "One"}, If_Match=as_xml)
    assert changed.status_code == 200
    for stale in (as_json, as_xml, "W/" + changed.headers["ETag"], "", '"nothing"'):
        refused = admin.put("/organization", {"name": "Two"}, If_Match=stale)
        assert (refused.status_code, code(refused)) == (412, "ORG_412")
    assert admin.get("/organization").headers["ETag"] == changed.headers["ETag"]
    listed = admin.put("/organization", {"name": "Two"}, If_Match=f'"other", {changed.headers["ETag"]}')
    assert listed.status_code == 200
    assert admin.put("/organization", {"name": "Three"}, If_Match="*").status_code == 200


def test_a_change_of_nothing_is_a_change(admin: Person) -> None:
    """Else two who write the same would both pass for the first."""
    etag = admin.put("/organization", {"name": "Same"}).headers["ETag"]
    assert admin.put("/organization", {"name": "Same"}, If_Match=etag).headers["ETag"] != etag


def test_of_two_who_read_the_same_one_wins(admin: Person) -> None:
    for number in range(5):
        etag = admin.get("/organization").headers["ETag"]
        at_once = threading.Barrier(4)

        def change(name: str, etag: str = etag, at_once: threading.Barrier = at_once) -> int:
            at_once.wait(10)
            return admin.put("/organization", {"name": name}, If_Match=etag).status_code

        with ThreadPoolExecutor(4) as pool:
            statuses = sorted(pool.map(change, [f"{number}{letter}" for letter in "abcd"]))
        assert statuses == [200, 412, 412, 412]


def test_an_organization_that_is_gone_is_not_found(site: Site, admin: Person) -> None:
    nowhere = Person(site, admin.id, 999_999, "admin", admin.email, admin.sid)
    assert nowhere.get("/organization").status_code == 404
    assert nowhere.put("/organization", {"name": "x"}).status_code == 404


def test_it_is_ready(site: Site) -> None:
    client = site.apps["organization"].test_client()
    assert client.get("/organization/ready").json["status"] == "ready"  # type: ignore[index]
    assert client.get("/organization/health").status_code == 200
