"""The user service."""

from flask import Flask

from heartguard import audit
from heartguard.app import create_service_app
from heartguard.database import Database
from heartguard.keyring import open_ring
from heartguard.revocations import RevocationList
from heartguard.settings import load
from heartguard.tokens import Tokens
from heartguard.valkey import check, connect

from .members import Members
from .settings import Settings
from .users import Users
from .views import endpoints


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the service together."""
    settings = settings or load(Settings)
    database = Database(settings.database_url, service="user")
    valkey = connect(settings.redis_url)
    app = create_service_app(
        endpoints,
        settings,
        Tokens(open_ring(settings.jwt_secret, settings.jwt_keyring_file)),
        resources=[Users(database), Members(database, RevocationList(valkey))],
        checks={"postgresql": database.check},
        # Not needed: while it is away the gateways ask auth what has been revoked.
        dispensable={"valkey": lambda: check(valkey)},
        trail=audit.Trail.open("user", settings.redis_url, settings.audit_spool),
    )
    app.extensions["heartguard.database"] = database
    app.extensions["heartguard.valkey"] = valkey
    return app
