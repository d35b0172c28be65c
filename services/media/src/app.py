"""The media service: files, in a directory or in Google Cloud Storage."""

from flask import Flask

from heartguard import audit
from heartguard.app import create_service_app
from heartguard.database import Database
from heartguard.keyring import open_ring
from heartguard.settings import load
from heartguard.sweeper import Sweeper
from heartguard.tokens import Tokens

from .listing import Listing
from .local_store import LocalStore
from .media import Media
from .mending import Mender
from .objects import Objects
from .settings import Settings
from .signing import LinkSigner
from .store import Store
from .views import endpoints


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the service together; it begins to look for what is left half done at once."""
    settings = settings or load(Settings)
    database = Database(settings.database_url, service="media")
    store = open_store(settings)
    incoming = settings.folder / "incoming"
    media = Media(database, store, incoming, max_file=settings.max_upload, max_body=settings.max_upload_body)
    app = create_service_app(
        endpoints,
        settings,
        Tokens(open_ring(settings.jwt_secret, settings.jwt_keyring_file)),
        resources=[media, Listing(database), Objects(store if isinstance(store, LocalStore) else None)],
        checks={"postgres": database.check, "store": store.check},
        trail=audit.Trail.open("media", settings.redis_url, settings.audit_spool),
    )
    app.extensions["heartguard.sweeper"] = Sweeper(Mender(database, store, incoming).sweep, settings.sweep_seconds)
    return app


SPARE = 4
"""Connections besides one for each thread: for the sweeper, and for whether the store answers."""


def open_store(settings: Settings) -> Store:
    """The store that the settings choose."""
    if settings.gcs_key is None:
        return LocalStore(settings.folder, LinkSigner(settings.jwt_secret), settings.signed_url_ttl)
    # Takes a second and 40 MB to import, which the local store is spared.
    from .gcs_store import GcsStore

    return GcsStore(
        settings.bucket,
        settings.gcs_key,
        ttl=settings.signed_url_ttl,
        connections=settings.threads + SPARE,
        endpoint=settings.endpoint,
    )
