"""The stores that there are, by name."""

from heartguard.database import Database

from .db import PostgresStore
from .influx_client import InfluxClient
from .influx_store import InfluxStore
from .settings import StoreSettings


def open_store(backend: str, settings: StoreSettings) -> PostgresStore | InfluxStore:
    """The store, whose settings have to be there."""
    if backend == "postgres":
        assert settings.database_url is not None
        return PostgresStore(Database(settings.database_url, service="timeseries"))
    assert settings.influx_url is not None
    assert settings.influx_token is not None
    assert settings.influx_org is not None
    return InfluxStore(InfluxClient(settings.influx_url, settings.influx_token, settings.influx_org), settings.bounds)
