"""The organization service."""

from flask import Flask

from heartguard import audit
from heartguard.app import create_service_app
from heartguard.database import Database
from heartguard.keyring import open_ring
from heartguard.settings import load
from heartguard.tokens import Tokens

from .organizations import Organizations
from .settings import Settings
from .views import endpoints


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the service together."""
    settings = settings or load(Settings)
    database = Database(settings.database_url, service="organization")
    app = create_service_app(
        endpoints,
        settings,
        Tokens(open_ring(settings.jwt_secret, settings.jwt_keyring_file)),
        resources=[Organizations(database)],
        checks={"postgresql": database.check},
        trail=audit.Trail.open("organization", settings.redis_url, settings.audit_spool),
    )
    app.extensions["heartguard.database"] = database
    return app
