"""The gateway: everything clients ask for comes through here."""

from flask import Flask

from heartguard.app import create_service_app
from heartguard.keyring import open_ring
from heartguard.ratelimit import RateLimiter
from heartguard.settings import load
from heartguard.tokens import Tokens
from heartguard.valkey import FastValkey

from .addresses import Addresses
from .authentication import Authenticator
from .cors import Cors
from .doorman import Doorman
from .front import Front
from .guard import Guard
from .pages import Pages
from .proxy import Proxy
from .readiness import Readiness
from .reports import Reports
from .revocation import Revocations
from .routes import Routes
from .settings import Settings
from .upstream import Upstream
from .views import endpoints

WAITING_PER_THREAD = 8
"""Threads of the gateway's mostly wait for services, so there are several for each of ``THREADS``."""


def create_front() -> Front:
    """The gateway as the web server runs it."""
    settings = load(Settings)
    proxy = create_app(settings).wsgi_app
    assert isinstance(proxy, Proxy)
    return Front(proxy, threads=WAITING_PER_THREAD * settings.threads)


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the gateway together; without ``settings`` they are read from the environment."""
    settings = settings or load(Settings)
    tokens = Tokens(open_ring(settings.jwt_secret, settings.jwt_keyring_file))
    valkey = FastValkey(settings.redis_url)
    upstreams = {name: Upstream(name, url, settings.upstream_timeout) for name, url in settings.upstreams().items()}
    addresses = Addresses(settings.trusted_proxies)
    guard = Guard(
        Authenticator(tokens),
        RateLimiter(valkey),
        Revocations(upstreams["auth"], tokens),
        rate=settings.rate_limit,
        strict_rate=settings.auth_rate_limit,
    )
    readiness = Readiness(valkey, upstreams)
    doorman = Doorman(guard, addresses, settings.metrics_allow)
    resources = [readiness, doorman, Pages(settings.openapi_file)]
    app = create_service_app(endpoints, settings, tokens, resources=resources, checks=readiness.checks())
    app.wsgi_app = Proxy(  # type: ignore[method-assign]
        app.wsgi_app,
        own_paths=frozenset(endpoint.path for endpoint in endpoints),
        routes=Routes.load(settings.routes_file),
        addresses=addresses,
        cors=Cors(settings.allowed_origins),
        guard=guard,
        upstreams=upstreams,
        reports=Reports(settings.log_level),
    )
    closing = [upstream.close for upstream in upstreams.values()]
    app.extensions["heartguard.close"] = [valkey.close, *closing]
    return app
