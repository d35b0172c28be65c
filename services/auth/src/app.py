"""The auth service: accounts, sessions, tokens."""

from flask import Flask

from heartguard import audit
from heartguard.app import create_service_app
from heartguard.database import Database
from heartguard.keyring import open_ring
from heartguard.ratelimit import RateLimiter
from heartguard.settings import load
from heartguard.tokens import Tokens
from heartguard.valkey import FastValkey, check, connect

from .accounts import Accounts
from .attempts import Attempts
from .devices import Devices
from .housekeeping import Housekeeping
from .lockout import Lockout
from .pairs import Pairs
from .revocations import Revocations
from .sessions import Sessions
from .settings import Settings
from .sign_in import SignIn
from .views import endpoints


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the service together and start its background thread."""
    settings = settings or load(Settings)
    database = Database(settings.database_url, service="auth")
    tokens = Tokens(open_ring(settings.jwt_secret, settings.jwt_keyring_file))
    valkey = connect(settings.redis_url)
    revocations = Revocations(database, valkey)
    fast_valkey = FastValkey(settings.redis_url)
    attempts = Attempts(RateLimiter(fast_valkey), settings.auth_rate_limit, settings.jwt_secret)
    lockout = Lockout(fast_valkey, settings.jwt_secret)
    pairs = Pairs(tokens, settings.jwt_expires_minutes * 60, settings.refresh_token_ttl)
    accounts = Accounts(database, attempts, settings)
    sign_in = SignIn(database, pairs, revocations, attempts, lockout, Devices(settings.jwt_secret))
    sessions = Sessions(database, tokens, pairs, revocations, attempts, settings.refresh_grace_seconds)
    housekeeping = Housekeeping(accounts, revocations, database)
    app = create_service_app(
        endpoints,
        settings,
        tokens,
        resources=[accounts, sign_in, sessions],
        checks={"postgresql": database.check, "setup": housekeeping.check_set_up},
        # Not needed: while it is away the gateways ask this service, which must be reachable then.
        dispensable={"valkey": lambda: check(valkey)},
        trail=audit.Trail.open("auth", settings.redis_url, settings.audit_spool),
    )
    app.extensions["heartguard.housekeeping"] = housekeeping
    housekeeping.start()
    return app
