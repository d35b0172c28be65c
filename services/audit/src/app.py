"""The audit service: records what happened, in chains that cannot be altered unnoticed."""

from flask import Flask
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from heartguard import audit
from heartguard.app import create_service_app
from heartguard.database import Database
from heartguard.keyring import open_ring
from heartguard.settings import load
from heartguard.tokens import Tokens
from heartguard.valkey import check

from .direct import Direct
from .export import Export
from .housekeeping import Housekeeping
from .intake import OutboxReader, StreamReader
from .reading import Reading
from .recorder import Recorder
from .settings import Settings
from .signing import Signer
from .timing import TIMING, Timing
from .verification import Verification
from .views import endpoints

VALKEY_TIMEOUT = 5.0
"""Seconds: longer than a read of the stream waits for something to come."""


def create_app(settings: Settings | None = None, *, timing: Timing = TIMING) -> Flask:
    """Wire the service together and start its background threads."""
    settings = settings or load(Settings)
    database = Database(settings.database_url, service="audit")
    valkey = connect(settings.redis_url)
    signer = Signer(settings.signing_key, settings.former_keys)
    recorder = Recorder(database, signer)
    reader = StreamReader(valkey, database, recorder, abandoned_ms=timing.abandoned_ms)
    housekeeping = Housekeeping(database, valkey, recorder, reader, settings.audit_spool, timing)
    trail = audit.Trail.open("audit", settings.redis_url, settings.audit_spool)
    app = create_service_app(
        endpoints,
        settings,
        Tokens(open_ring(settings.jwt_secret, settings.jwt_keyring_file)),
        resources=[
            Direct(database, recorder),
            Reading(database),
            Verification(database, signer),
            Export(database, signer),
        ],
        checks={"postgresql": database.check},
        # Events wait in the spools meanwhile, or are just late.
        dispensable={"valkey": lambda: check(valkey), "backlog": housekeeping.check_backlog},
        trail=trail,
    )
    workers = [reader, OutboxReader(database, recorder), housekeeping]
    for worker in workers:
        worker.start()

    def close() -> None:
        for worker in workers:
            worker.stop()
        trail.stop()
        valkey.close()
        database.close()

    app.extensions["heartguard.close"] = close
    return app


def connect(url: str) -> Redis:
    """A client that waits longer than others: it reads what is yet to come."""
    return Redis.from_url(
        url, socket_connect_timeout=1.0, socket_timeout=VALKEY_TIMEOUT, max_connections=8, retry=Retry(NoBackoff(), 0)
    )
