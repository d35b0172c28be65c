"""Registering, profiles, roles and the first admin."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from heartguard.database import Database
from heartguard.errors import Unavailable
from heartguard.models.auth_token import RegisterRequest
from heartguard.tokens import Tokens


def test_a_person_registers_as_user_of_the_default_organization(api: Any) -> None:
    answer = api.register(email="User@HG.io", first_name="Ana", last_name="Núñez")
    assert answer.status == 201
    assert answer.body == {"user_id": 2, "email": "user@hg.io", "role": "user", "org_id": 1}
    token = api.signed_in("uSER@hg.IO")["access_token"]
    profile = api.get("/auth/profile", token)
    assert profile.status == 200
    created, last_login = profile.body.pop("created_at"), profile.body.pop("last_login_at")
    assert created.endswith("Z")
    assert last_login >= created
    assert profile.body == {
        "id": 2, "email": "user@hg.io", "role": "user", "org_id": 1, "first_name": "Ana", "last_name": "Núñez",
    }  # fmt: skip


def test_what_was_not_given_is_left_out_of_the_profile(api: Any) -> None:
    assert api.register(email="user@hg.io").status == 201
    token = api.signed_in("user@hg.io")["access_token"]
    assert set(api.get("/auth/profile", token).body) == {
        "id", "email", "role", "org_id", "created_at", "last_login_at",
    }  # fmt: skip


def test_a_taken_address_is_refused_in_any_case(api: Any) -> None:
    assert api.register(email="user@hg.io").status == 201
    answer = api.register(email="USER@hg.io")
    assert (answer.status, answer.code) == (409, "AUTH_002")


def test_of_many_who_register_one_address_at_once_one_does(json_api: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: json_api.register(email="user@hg.io"), range(8)))
    assert sorted(answer.status for answer in answers) == [201, *[409] * 7]


@pytest.mark.parametrize("password", ["short", "password", "x" * 129])
def test_an_unacceptable_password_is_refused(api: Any, password: str) -> None:
    answer = api.register(email="user@hg.io", password=password)
    assert (answer.status, answer.code, answer.paths) == (422, "AUTH_005", ["/password"])


@pytest.mark.parametrize("role", ["admin", "manager"])
def test_nobody_registers_with_another_role_on_the_own(api: Any, role: str) -> None:
    answer = api.register(email="user@hg.io", role=role)
    assert (answer.status, answer.code) == (403, "AUTH_006")


@pytest.mark.parametrize("role", ["admin", "manager", "user"])
def test_an_admin_registers_any_role_in_the_own_organization(api: Any, role: str) -> None:
    answer = api.register(api.admin(), email="someone@hg.io", role=role)
    assert (answer.status, answer.body["role"], answer.body["org_id"]) == (201, role, 1)


@pytest.mark.parametrize("role", ["manager", "user"])
def test_others_register_nobody(api: Any, role: str) -> None:
    api.register(api.admin(), email="someone@hg.io", role=role)
    token = api.signed_in("someone@hg.io")["access_token"]
    answer = api.register(token, email="other@hg.io")
    assert (answer.status, answer.code) == (403, "AUTH_403")


def test_a_bad_token_is_refused_and_not_overlooked(api: Any) -> None:
    answer = api.register("not.a.token", email="user@hg.io")
    assert (answer.status, answer.code) == (401, "AUTH_401")


def test_an_admin_who_signed_out_or_was_demoted_registers_nobody(json_api: Any, database: Database) -> None:
    gone, demoted = json_api.admin(), json_api.admin()
    assert json_api.logout(gone).status == 204
    assert json_api.register(gone, email="user@hg.io").status == 401
    with database.transaction() as tx:
        tx.execute(text("UPDATE heartguard_core.users SET role = 'manager' WHERE id = 1"))
    assert json_api.register(demoted, email="user@hg.io").status == 403


def test_closed_registration(run_service: Any, speak: Any) -> None:
    with run_service(REGISTRATION="closed") as app:
        for fmt in ("json", "xml"):
            api = speak(app, fmt)
            answer = api.register(email=f"user@{fmt}.io")
            assert (answer.status, answer.code) == (403, "AUTH_403")
            assert api.register(api.admin(), email=f"user@{fmt}.io").status == 201


def test_an_organization_is_signed_up_only_where_that_is_allowed(api: Any) -> None:
    answer = api.register(email="chief@clinic.io", organization_name="Clinic")
    assert (answer.status, answer.code) == (403, "AUTH_403")


def test_signing_an_organization_up(run_service: Any, speak: Any, database: Database) -> None:
    with run_service(ORG_SIGNUP="true") as app:
        for fmt in ("json", "xml"):
            api = speak(app, fmt)
            answer = api.register(email=f"chief@{fmt}.io", organization_name=f"Clinic {fmt}")
            assert (answer.status, answer.body["role"]) == (201, "admin")
            org_id = answer.body["org_id"]
            assert org_id > 1
            chief = api.signed_in(f"chief@{fmt}.io")["access_token"]
            assert api.register(chief, email=f"nurse@{fmt}.io", role="manager").body["org_id"] == org_id
            refused = api.register(email=f"other@{fmt}.io", organization_name="Other", role="manager")
            assert (refused.status, refused.code) == (403, "AUTH_006")
            refused = api.register(chief, email=f"other@{fmt}.io", organization_name="Other")
            assert (refused.status, refused.paths) == (422, ["/organization_name"])
            taken = api.register(email=f"chief@{fmt}.io", organization_name="Left behind")
            assert taken.status == 409
    with database.transaction() as tx:
        names = tx.execute(text("SELECT name FROM heartguard_core.organizations ORDER BY id")).scalars().all()
    assert names == ["HeartGuard", "Clinic json", "Clinic xml"]


def test_the_address_of_a_deleted_account_is_free(json_api: Any, database: Database) -> None:
    assert json_api.register(email="user@hg.io").status == 201
    token = json_api.signed_in("user@hg.io")["access_token"]
    with database.transaction() as tx:
        tx.execute(text("UPDATE heartguard_core.users SET deleted_at = now() WHERE id = 2"))
    assert json_api.get("/auth/profile", token).status == 401
    assert json_api.login("user@hg.io").code == "AUTH_001"
    assert json_api.register(email="user@hg.io").body["user_id"] == 3


def test_roles(api: Any) -> None:
    answer = api.get("/auth/roles", api.admin())
    assert [role["name"] for role in answer.body["roles"]] == ["admin", "manager", "user"]
    assert all(role["description"] for role in answer.body["roles"])


@pytest.mark.parametrize("path", ["/auth/profile", "/auth/roles"])
def test_signed_in_only(api: Any, path: str, tokens: Tokens) -> None:
    missing = api.get(path)
    assert (missing.status, missing.code, missing.headers["WWW-Authenticate"]) == (401, "AUTH_401", "Bearer")
    assert api.get(path, tokens.service_token()).status == 403
    assert (
        api.get(path, api.signed_in("admin@heartguard.io", "the first admin's password")["refresh_token"]).status == 401
    )


def test_a_second_start_changes_nothing(run_service: Any, speak: Any, database: Database) -> None:
    with run_service(DEFAULT_ORG_NAME="First") as app:
        speak(app).admin()
    with run_service(DEFAULT_ORG_NAME="Second", BOOTSTRAP_ADMIN_PASSWORD="another password") as app:
        assert speak(app).login("admin@heartguard.io", "another password").status == 401
        speak(app).admin()
    with database.transaction() as tx:
        assert tx.execute(text("SELECT id, name FROM heartguard_core.organizations")).all() == [(1, "First")]
        assert tx.execute(text("SELECT count(*) FROM heartguard_core.users")).scalar_one() == 1


def test_many_that_start_at_once_make_one_admin(accounts: Any, database: Database) -> None:
    starting = accounts()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: starting.bootstrap(), range(6)))
    with database.transaction() as tx:
        assert tx.execute(text("SELECT email FROM heartguard_core.users")).scalars().all() == ["admin@heartguard.io"]


def test_an_account_is_never_turned_into_the_first_admin(accounts: Any, database: Database, json_api: Any) -> None:
    json_api.register(email="user@hg.io")
    with database.transaction() as tx:
        tx.execute(text("DELETE FROM heartguard_core.users WHERE role = 'admin'"))
    accounts(BOOTSTRAP_ADMIN_EMAIL="user@hg.io").bootstrap()
    assert json_api.signed_in("user@hg.io")
    with database.transaction() as tx:
        assert tx.execute(text("SELECT role FROM heartguard_core.users")).scalars().all() == ["user"]


def test_before_it_is_set_up_nobody_registers(accounts: Any) -> None:
    with pytest.raises(Unavailable):
        accounts().register(RegisterRequest(email="user@hg.io", password="Secret123!x"), None)
