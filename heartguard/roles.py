"""The services' database roles: each may do just what its service needs, and none is used by two.

Migrations run as the schema's owner, services never do: whoever owns a table, or is a superuser, passes
over every right and every row's policy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .settings import SettingsError, variable

if TYPE_CHECKING:  # slow to import, and not needed by who only asks for names
    import psycopg

SCHEMA = "heartguard_core"
MINIMUM_PASSWORD = 16
FOREIGN = re.compile(r"[A-Z]+_(DATABASE_URL|DB_PASSWORD)(_FILE)?\Z")
"""Variables that lead into the database as some service."""


def password(value: str) -> str:
    if len(value) < MINIMUM_PASSWORD:
        raise ValueError(f"should be at least {MINIMUM_PASSWORD} characters; make one with: openssl rand -hex 24")
    return value


@dataclass(frozen=True, kw_only=True)
class RolePasswords:
    """With what each service signs in to PostgreSQL; None leaves the role as it is."""

    auth: str | None = variable("AUTH_DB_PASSWORD", password, optional=True)
    organization: str | None = variable("ORG_DB_PASSWORD", password, optional=True)
    user: str | None = variable("USER_DB_PASSWORD", password, optional=True)
    media: str | None = variable("MEDIA_DB_PASSWORD", password, optional=True)
    timeseries: str | None = variable("TIMESERIES_DB_PASSWORD", password, optional=True)
    audit: str | None = variable("AUDIT_DB_PASSWORD", password, optional=True)


ROLES: Mapping[str, str] = {name: f"heartguard_{name}" for name in RolePasswords.__dataclass_fields__}
"""By the service's name."""


def let_in(connection: "psycopg.Connection[Any]", passwords: Mapping[str, str]) -> None:
    """Let the services of that name sign in, each with its password.

    The server is told what it keeps of a password, never the password itself: statements can end up in its log.
    """
    from psycopg import sql

    for service, secret in passwords.items():
        role = ROLES[service]
        kept = connection.pgconn.encrypt_password(secret.encode(), role.encode(), b"scram-sha-256")
        connection.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(kept.decode()))
        )


class PowerfulRole(SettingsError):
    """A service was given a role that nothing holds back."""

    def __init__(self, role: str) -> None:
        super().__init__(
            f"DATABASE_URL signs in as {role}, who owns the database's schema, is a superuser or passes over"
            " row-level security. No service may: give it the role of its own that docs/operations.md names under"
            " 'Database roles', by AUTH_DATABASE_URL, USER_DATABASE_URL and so on."
        )


_POWERFUL = """
SELECT current_user::text FROM pg_roles r
WHERE pg_has_role(r.oid, 'MEMBER') AND (
    r.rolsuper OR r.rolbypassrls
    OR EXISTS (SELECT FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'users'
               WHERE n.nspname = %(schema)s AND r.oid IN (n.nspowner, c.relowner))
)
LIMIT 1
"""


def refuse_powerful(connection: "psycopg.Connection[Any]") -> None:
    """Raises :class:`PowerfulRole` where the connection's role is, or can become, one that nothing holds back."""
    if found := connection.execute(_POWERFUL, {"schema": SCHEMA}).fetchone():
        raise PowerfulRole(str(found[0]))
