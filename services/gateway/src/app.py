"""The gateway: everything clients ask for comes through here."""

from flask import Flask

from heartguard.app import create_service_app
from heartguard.audit import Trail
from heartguard.audit.async_trail import AsyncTrail
from heartguard.keyring import open_ring
from heartguard.pipeline import Pipeline
from heartguard.ratelimit import AsyncRateLimiter
from heartguard.settings import load
from heartguard.tokens import Tokens

from .addresses import Addresses
from .authentication import Authenticator
from .bridge import Bridge
from .cors import Cors
from .doorman import Doorman
from .front import Front
from .guard import Guard
from .journal import Journal
from .own_pages import OwnPages
from .pages import Pages
from .proxy import Proxy
from .readiness import Readiness
from .reports import Reports
from .revocation import Revocations
from .routes import Routes
from .settings import Settings
from .stored import Storage
from .upstream import Upstream
from .views import endpoints

FRONT = "heartguard.front"
"""The extension of the Flask application that stands before it."""


def create_front(settings: Settings | None = None) -> Front:
    """The gateway as the web server runs it."""
    front: Front = create_app(settings).extensions[FRONT]
    return front


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the gateway together; without ``settings`` they are read from the environment.

    Flask answers the gateway's own pages. What stands before it, and answers all else, is its extension.
    """
    settings = settings or load(Settings)
    tokens = Tokens(open_ring(settings.jwt_secret, settings.jwt_keyring_file))
    valkey = Pipeline(settings.redis_url)
    storage = Storage()
    upstreams = {
        name: Upstream(name, url, settings.upstream_timeout, storage) for name, url in settings.upstreams().items()
    }
    addresses = Addresses(settings.trusted_proxies)
    bridge = Bridge()
    guard = Guard(
        Authenticator(tokens),
        AsyncRateLimiter(valkey),
        Revocations(upstreams["auth"], tokens),
        rate=settings.rate_limit,
        strict_rate=settings.auth_rate_limit,
    )
    trail = Trail.open("gateway", settings.redis_url, settings.audit_spool)
    journal = Journal(AsyncTrail(valkey, trail))
    readiness = Readiness(valkey, upstreams, bridge)
    doorman = Doorman(guard, bridge, settings.metrics_allow)
    resources = [readiness, doorman, Pages(settings.openapi_file)]
    app = create_service_app(endpoints, settings, tokens, resources=resources, checks=readiness.checks(), trail=trail)
    routes = Routes.load(settings.routes_file, settings.max_upload_body)
    app.extensions[FRONT] = Front(
        OwnPages(app.wsgi_app, settings.threads),
        own_paths=frozenset(endpoint.path for endpoint in endpoints),
        influx_paths=routes.influx_paths,
        proxy=Proxy(
            routes=routes,
            addresses=addresses,
            guard=guard,
            upstreams=upstreams,
            journal=journal,
        ),
        addresses=addresses,
        cors=Cors(settings.allowed_origins),
        guard=guard,
        reports=Reports(settings.log_level),
        bridge=bridge,
        closing=[trail.stop, valkey.close, *(upstream.close for upstream in upstreams.values())],
    )
    return app
