"""The time-series service: heart data in, raw or in windows out."""

import sys

from flask import Flask

from heartguard import audit
from heartguard.app import create_service_app
from heartguard.keyring import open_ring
from heartguard.settings import load
from heartguard.sweeper import Sweeper
from heartguard.tokens import Tokens

from .settings import Settings
from .stores import open_store
from .timeseries import TimeSeries
from .views import endpoints

SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter while others wait for it. With Python's default, ten times as long, the short
answers of some wait for the long ones of others, several times each."""


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the service together; it begins to clear away expired points at once."""
    settings = settings or load(Settings)
    sys.setswitchinterval(SWITCH_SECONDS)
    store = open_store(settings.backend, settings)
    app = create_service_app(
        endpoints,
        settings,
        Tokens(open_ring(settings.jwt_secret, settings.jwt_keyring_file)),
        resources=[
            TimeSeries(store, settings.bounds, max_buckets=settings.max_buckets, max_queries=settings.max_queries)
        ],
        checks={settings.backend: store.check},
        trail=audit.Trail.open("timeseries", settings.redis_url, settings.audit_spool),
    )
    app.extensions["heartguard.sweeper"] = Sweeper(store.sweep, settings.sweep_seconds)
    return app
