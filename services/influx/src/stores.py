"""The stores that there are, by name."""

from heartguard.database import Database
from heartguard.settings import SettingsError

from .db import PostgresStore
from .influx_client import InfluxClient
from .influx_store import InfluxStore
from .settings import StoreSettings


def open_store(backend: str, settings: StoreSettings) -> PostgresStore | InfluxStore:
    """The store. Raises SettingsError where a setting of its is missing."""
    return open_postgres(settings) if backend == "postgres" else open_influx(settings)


def open_postgres(settings: StoreSettings) -> PostgresStore:
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL is needed and not set")
    return PostgresStore(Database(settings.database_url, service="timeseries"))


def open_influx(settings: StoreSettings) -> InfluxStore:
    url, token, org = settings.influx_url, settings.influx_token, settings.influx_org
    if url is None or token is None or org is None:
        raise SettingsError(f"These are needed and not set: {', '.join(settings.missing('influx'))}")
    return InfluxStore(InfluxClient(url, token, org), settings.bounds, settings.influx_max_files)
