"""The SQL of organizations and users."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from heartguard.database import Database
from heartguard.models.base import Role
from heartguard.tokens import Claims

DEFAULT_ORG_ID = 1
BOOTSTRAP_LOCK = 0x41757468  # "Auth": any number that nobody else takes

ACCOUNT = "u.id, u.org_id, u.email, u.role, u.first_name, u.last_name, u.created_at, u.last_login_at"
"""The columns of an :class:`Account`."""

_OF_THE_CALLER = """
    FROM heartguard_core.users u JOIN heartguard_core.sessions s ON s.user_id = u.id
    WHERE u.id = :user_id AND s.id = :sid AND u.deleted_at IS NULL AND s.ended_at IS NULL
"""
_FIND_CALLER = text(f"SELECT {ACCOUNT} {_OF_THE_CALLER}")
_FIND_OWN_CREDENTIALS = text(f"SELECT u.id, u.password_hash {_OF_THE_CALLER}")
_FIND_CREDENTIALS = text(f"""
    SELECT {ACCOUNT}, u.password_hash FROM heartguard_core.users u WHERE u.email = :email AND u.deleted_at IS NULL
""")  # noqa: S608


@dataclass(frozen=True)
class Account:
    """A user, without the password; in the order of :data:`ACCOUNT`."""

    id: int
    org_id: int
    email: str
    role: Role
    first_name: str | None
    last_name: str | None
    created_at: datetime
    last_login_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewAccount:
    """``email`` is in lower case."""

    org_id: int
    email: str
    password_hash: str
    role: Role
    first_name: str | None = None
    last_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Credentials:
    user_id: int
    password_hash: str


def lock_bootstrap(tx: Connection) -> None:
    """Wait until no other process sets the database up; freed at the end of the transaction."""
    tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": BOOTSTRAP_LOCK})


def ensure_default_organization(tx: Connection, name: str) -> None:
    tx.execute(
        text("INSERT INTO heartguard_core.organizations (id, name) VALUES (:id, :name) ON CONFLICT (id) DO NOTHING"),
        {"id": DEFAULT_ORG_ID, "name": name},
    )


def next_organization_id(database: Database) -> int:
    """The id of an organization that is about to be made: only one that says which it is shows its rows."""
    ((org_id,),) = database.at_once(text("SELECT nextval('heartguard_core.organizations_id_seq')"), {})
    return int(org_id)


def insert_organization(tx: Connection, org_id: int, name: str) -> None:
    tx.execute(
        text("INSERT INTO heartguard_core.organizations (id, name) VALUES (:id, :name)"), {"id": org_id, "name": name}
    )


def organization_exists(tx: Connection, org_id: int) -> bool:
    return bool(
        tx.execute(
            text("SELECT EXISTS (SELECT FROM heartguard_core.organizations WHERE id = :id)"), {"id": org_id}
        ).scalar_one()
    )


def has_admin(tx: Connection, org_id: int) -> bool:
    return bool(
        tx.execute(
            text(
                "SELECT EXISTS (SELECT FROM heartguard_core.users"
                " WHERE org_id = :org_id AND role = 'admin' AND deleted_at IS NULL)"
            ),
            {"org_id": org_id},
        ).scalar_one()
    )


def insert_user(tx: Connection, account: NewAccount) -> int | None:
    """The new user's id; None where the address is taken."""
    found: int | None = tx.execute(
        text(
            "INSERT INTO heartguard_core.users (org_id, email, password_hash, role, first_name, last_name)"
            " VALUES (:org_id, :email, :password_hash, :role, :first_name, :last_name)"
            " ON CONFLICT (email) WHERE deleted_at IS NULL DO NOTHING RETURNING id"
        ),
        vars(account),
    ).scalar_one_or_none()
    return found


def find_caller(tx: Connection, claims: Claims) -> Account | None:
    """The user a token speaks for, as long as user and session live."""
    row = tx.execute(_FIND_CALLER, {"user_id": claims.user_id, "sid": claims.sid}).one_or_none()
    return Account(*row) if row else None


def find_credentials(database: Database, email: str) -> tuple[Account, Credentials] | None:
    """A unit of work by itself: nobody knows the organization yet."""
    for *columns, password_hash in database.at_once(_FIND_CREDENTIALS, {"email": email}, email=email):
        account = Account(*columns)
        return account, Credentials(user_id=account.id, password_hash=password_hash)
    return None


def find_own_credentials(tx: Connection, claims: Claims) -> Credentials | None:
    """Of the user a token speaks for, as long as user and session live."""
    row = tx.execute(_FIND_OWN_CREDENTIALS, {"user_id": claims.user_id, "sid": claims.sid}).one_or_none()
    return Credentials(user_id=row.id, password_hash=row.password_hash) if row else None


def change_password(tx: Connection, verified: Credentials, password_hash: str) -> bool:
    """Replace the hash; False where the account changed since ``verified`` was."""
    return (
        tx.execute(
            text(
                "UPDATE heartguard_core.users SET password_hash = :password_hash, updated_at = now()"
                " WHERE id = :user_id AND password_hash = :verified AND deleted_at IS NULL"
            ),
            {"user_id": verified.user_id, "verified": verified.password_hash, "password_hash": password_hash},
        ).rowcount
        == 1
    )
