"""The auth service: accounts, sessions, tokens."""

from flask import Flask

from heartguard.app import create_service_app
from heartguard.database import Database
from heartguard.ratelimit import RateLimiter
from heartguard.settings import load
from heartguard.tokens import KeyRing, Tokens
from heartguard.valkey import FastValkey, check, connect

from .accounts import Accounts
from .attempts import Attempts
from .housekeeping import Housekeeping
from .revocations import Revocations
from .sessions import Sessions
from .settings import Settings
from .views import endpoints


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the service together and start its background thread."""
    settings = settings or load(Settings)
    database = Database(settings.database_url, service="auth")
    tokens = Tokens(KeyRing.from_secret(settings.jwt_secret))
    valkey = connect(settings.redis_url)
    revocations = Revocations(database, valkey)
    limiter = RateLimiter(FastValkey(settings.redis_url))
    attempts = Attempts(limiter, settings.auth_rate_limit, settings.jwt_secret)
    accounts = Accounts(database, attempts, settings)
    sessions = Sessions(database, tokens, revocations, attempts, settings)
    housekeeping = Housekeeping(accounts, revocations, database)
    app = create_service_app(
        endpoints,
        settings,
        tokens,
        resources=[accounts, sessions],
        checks={"postgresql": database.check, "setup": housekeeping.check_set_up},
        # Not needed: while it is away the gateways ask this service, which must be reachable then.
        dispensable={"valkey": lambda: check(valkey)},
    )
    app.extensions["heartguard.housekeeping"] = housekeeping
    housekeeping.start()
    return app
