"""The time-series service with a store that keeps nothing: what reading and checking alone cost.

python -m benchmarks.door --port 5999
"""

import argparse
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Flask
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from heartguard.app import create_service_app
from heartguard.audit import Event
from heartguard.models.timeseries import FieldValue
from heartguard.settings import ServiceSettings, load
from heartguard.tokens import KeyRing, Tokens
from heartguard.worker import load as load_in_worker
from services.influx.src.store import FieldType, Row, Selection, Series, StoredBucket
from services.influx.src.times import UNBOUNDED
from services.influx.src.timeseries import TimeSeries
from services.influx.src.views import endpoints


class Door:
    """A batch that goes nowhere."""

    def add(self, series: Series, field: str, times: Sequence[int], values: Sequence[FieldValue | int]) -> None:
        pass

    def write(self, left_out: int = 0) -> None:
        pass


class Nowhere:
    """Implements :class:`services.influx.src.store.Store`."""

    def bucket(self, org_id: int, name: str) -> StoredBucket | None:
        now = datetime.now(UTC)
        return StoredBucket(id="1", org_id=org_id, name=name, retention_seconds=0, created_at=now, description=None)

    def buckets(self, org_id: int) -> list[StoredBucket]:
        return []

    def create_bucket(self, org_id: int, name: str, **_: Any) -> StoredBucket | None:
        return None

    def drop_bucket(self, org_id: int, name: str) -> bool:
        return False

    def batch(self, bucket: StoredBucket) -> Door:
        return Door()

    def field_types(self, bucket: StoredBucket, measurements: Collection[str]) -> Mapping[tuple[str, str], FieldType]:
        return {}

    def select(self, bucket: StoredBucket, selection: Selection) -> Sequence[Row]:
        return []

    def check(self) -> None:
        pass

    def sweep(self) -> None:
        pass


class Deaf:
    """An audit trail that keeps nothing."""

    def put(self, *events: Event) -> None:
        pass

    def check(self) -> None:
        pass


def create_app() -> Flask:
    settings = load(ServiceSettings)
    tokens = Tokens(KeyRing.from_secret(settings.jwt_secret))
    return create_service_app(endpoints, settings, tokens, resources=[TimeSeries(Nowhere(), UNBOUNDED)], trail=Deaf())


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    Granian(
        "benchmarks.door:create_app", address="127.0.0.1", port=port, interface=Interfaces.WSGI, http=HTTPModes.http1,
        websockets=False, workers=1, blocking_threads=4, log_level=LogLevels.warning,
    ).serve(target_loader=partial(load_in_worker, os.getpid()))  # fmt: skip


if __name__ == "__main__":
    main()
