"""The organization and user services in this process, on real stores, with two organizations in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import text
from werkzeug.test import TestResponse

from heartguard.settings import load
from services.auth.src.app import create_app as create_auth
from services.auth.src.housekeeping import Housekeeping
from services.auth.src.settings import Settings as AuthSettings
from services.organization.src.app import create_app as create_organization
from services.organization.src.settings import Settings as OrganizationSettings
from services.user.src.app import create_app as create_user
from services.user.src.settings import Settings as UserSettings

from ..callers import SECRET, authorization


@dataclass
class Person:
    """Somebody signed in, and how he speaks to the services."""

    site: "Site"
    id: int
    org_id: int
    role: str
    email: str
    sid: str

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        app = self.site.apps[{"users": "user"}.get(path.split("/")[1].partition("?")[0], path.split("/")[1])]
        sent = {
            **authorization(self.org_id, self.role, self.id, self.sid),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        options: dict[str, Any] = {"json": body}
        if isinstance(body, bytes):
            options = {"data": body, "content_type": "application/xml"}
        return app.test_client().open(path, method=method, headers=sent, **options)

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.send("GET", path, **headers)

    def put(self, path: str, body: Any, **headers: str) -> TestResponse:
        return self.send("PUT", path, body, **headers)

    def delete(self, path: str) -> TestResponse:
        return self.send("DELETE", path)


@dataclass
class Site:
    """The services, and the organizations that a test makes."""

    superuser: Any
    apps: dict[str, Flask] = field(default_factory=dict)

    def organization(self, name: str = "Org") -> int:
        with self.superuser.transaction() as tx:
            return int(
                tx.execute(
                    text("INSERT INTO heartguard_core.organizations (name) VALUES (:name) RETURNING id"), {"name": name}
                ).scalar_one()
            )

    def person(self, org_id: int, role: str = "user", **columns: Any) -> Person:
        email, sid = f"{uuid4().hex}@hg.io", str(uuid4())
        with self.superuser.transaction() as tx:
            user_id = int(
                tx.execute(
                    text(
                        "INSERT INTO heartguard_core.users (org_id, email, password_hash, role, first_name)"
                        " VALUES (:org_id, :email, 'none', :role, :first_name) RETURNING id"
                    ),
                    {"org_id": org_id, "email": email, "role": role, "first_name": columns.get("first_name")},
                ).scalar_one()
            )
        person = Person(self, user_id, org_id, role, email, sid)
        self.sign_in(person)
        return person

    def sign_in(self, person: Person) -> str:
        """Another session of the person's; the first is the one that the person speaks in."""
        sid = (
            str(uuid4())
            if self.one("SELECT id FROM heartguard_core.sessions WHERE id = :sid", sid=person.sid)
            else person.sid
        )
        with self.superuser.transaction() as tx:
            tx.execute(
                text(
                    "INSERT INTO heartguard_core.sessions (id, user_id, org_id, access_expires_at, refresh_expires_at)"
                    " VALUES (:sid, :user_id, :org_id, now() + interval '1 hour', now() + interval '1 day')"
                ),
                {"sid": sid, "user_id": person.id, "org_id": person.org_id},
            )
        return sid

    def one(self, query: str, **parameters: Any) -> Any:
        """The first row that a query finds, seen by the superuser."""
        with self.superuser.transaction() as tx:
            return tx.execute(text(query), parameters).first()


@pytest.fixture(scope="module")
def apps(
    url_for: Callable[[str], str], valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Flask]]:
    common = {"JWT_SECRET": SECRET, "REDIS_URL": valkey_url, "AUDIT_SPOOL": str(tmp_path_factory.mktemp("spool"))}
    apps = {
        "organization": create_organization(
            load(OrganizationSettings, {**common, "DATABASE_URL": url_for("organization")})
        ),
        "user": create_user(load(UserSettings, {**common, "DATABASE_URL": url_for("user")})),
    }
    auth = {**common, "DATABASE_URL": url_for("auth"), "BOOTSTRAP_ADMIN_PASSWORD": "the first admin's password"}
    apps["auth"] = create_auth(load(AuthSettings, auth))
    yield apps
    housekeeping = apps.pop("auth").extensions["heartguard.housekeeping"]
    housekeeping.stop()
    housekeeping._database.close()
    housekeeping._revocations._valkey.close()
    housekeeping._accounts._attempts._limiter._valkey.close()
    for app in apps.values():
        app.extensions["heartguard.audit"].stop()
        app.extensions["heartguard.database"].close()
    apps["user"].extensions["heartguard.valkey"].close()


@pytest.fixture
def site(apps: dict[str, Flask], superuser: Any) -> Site:
    return Site(superuser, apps)


@pytest.fixture
def without_housekeeping(apps: dict[str, Flask]) -> Iterator[None]:
    """The auth service publishes no revocation during the test; a round under way has ended before it begins."""
    extensions = apps["auth"].extensions
    stopped: Housekeeping = extensions["heartguard.housekeeping"]
    stopped.stop()
    assert not stopped._thread.is_alive()
    yield
    started = Housekeeping(stopped._accounts, stopped._revocations, stopped._database)
    started.start()
    extensions["heartguard.housekeeping"] = started


@pytest.fixture
def org(site: Site) -> int:
    return site.organization()


@pytest.fixture
def admin(site: Site, org: int) -> Person:
    return site.person(org, "admin")


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as client:
        yield client
