"""Buckets of the imitation: their rules, points with their types, and what InfluxDB says where one does not fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from .fake_flux import KINDS, Chosen
from .fake_lines import Point, Value

SECOND = 10**9
HOUR, DAY, WEEK = 3600, 86_400, 7 * 86_400
_PARTIAL = "failure writing points to database: partial write: "
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Json = dict[str, Any]


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


def moment(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, SECOND)
    whole = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{whole}Z"


SeriesKey = tuple[str, tuple[tuple[str, str], ...]]
"""Measurement and tags."""


@dataclass
class Bucket:
    id: str
    org_id: str
    name: str
    made: int
    changed: int
    kind: str = "user"
    description: str = ""
    retention: int = 0
    shards: int = WEEK
    """Seconds that each is for."""
    series: dict[SeriesKey, dict[str, dict[int, Value]]] = field(default_factory=dict)
    types: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)
    """Of a measurement's field, by shard: in each it has one."""

    def answer(self) -> Json:
        path = f"/api/v2/buckets/{self.id}"
        rule = {"type": "expire", "everySeconds": self.retention, "shardGroupDurationSeconds": self.shards}
        return {
            "id": self.id, "orgID": self.org_id, "type": self.kind,
            **({"description": self.description} if self.description else {}),
            "name": self.name, "retentionRules": [rule],
            "createdAt": moment(self.made), "updatedAt": moment(self.changed),
            "links": {
                **{name: f"{path}/{name}" for name in ("labels", "members")}, "org": f"/api/v2/orgs/{self.org_id}",
                "owners": f"{path}/owners", "self": path, "write": f"/api/v2/write?org={self.org_id}&bucket={self.id}",
            },
            "labels": [],
        }  # fmt: skip

    def change(self, wanted: Json, *, is_new: bool) -> None:
        """Name, description and retention rule, if they are good."""
        name, rules = wanted.get("name", self.name), wanted.get("retentionRules") or [{}]
        if name.startswith("_"):
            raise Refused(400, "invalid", f"bucket name {name} is invalid. Buckets may not start with underscore")
        if '"' in name:
            message = f"bucket name {name} is invalid. Bucket names may not include quotation marks"
            raise Refused(400, "invalid", message)
        retention = rules[0].get("everySeconds", self.retention)
        if retention < 0:
            raise Refused(422, "unprocessable entity", "expiration seconds cannot be negative")
        if 0 < retention < HOUR:
            raise Refused(500, "internal error", "retention policy duration must be at least 1h0m0s")
        default = WEEK if retention == 0 or retention >= 180 * DAY else DAY if retention >= 2 * DAY else HOUR
        shards = rules[0].get("shardGroupDurationSeconds") or (default if is_new else self.shards)
        if 0 < retention < shards and is_new:
            message = "retention policy duration must be greater than the shard duration"
            raise Refused(500, "internal error", message)
        if 0 < retention < shards:
            message = "shard-group duration must also be updated to be smaller than new retention duration"
            raise Refused(422, "unprocessable entity", message)
        self.name, self.retention, self.shards = name, retention, shards
        self.description = wanted.get("description", self.description)

    def write(self, points: Sequence[Point], now: int) -> None:
        """All but those that cannot be stored; what is said of these is of one shard, or else of the expired ones."""
        oldest = now - self.retention * SECOND if self.retention else -(2**63)
        refused: dict[int, list[str]] = {}
        expired: list[tuple[int, str]] = []
        for point in points:
            at = now if point.time is None else point.time
            if at < oldest:
                expired.append((at, point.measurement))
            elif problem := self._problem(point, at):
                refused.setdefault(self._shard(at), []).append(problem)
            else:
                self._store(point, at)
        if refused:
            first = refused[min(refused)]
            raise Refused(422, "unprocessable entity", f"{_PARTIAL}{first[0]} dropped={len(first)}")
        if expired:
            why = f"dropped because it violates a Retention Policy Lower Bound at {moment(oldest)}"
            ends = [f"point {name} at {moment(at)} {why}" for at, name in (min(expired), max(expired))]
            lost = f"dropped {len(expired)} points outside retention policy of duration {self.retention // HOUR}h0m0s"
            place = f"dropped={len(expired)} for database: {self.id} for retention policy: autogen"
            message = f"{_PARTIAL}{lost} - oldest {ends[0]}, newest {ends[1]} {place}"
            raise Refused(422, "unprocessable entity", message)

    def _shard(self, at: int) -> int:
        return at // (self.shards * SECOND)

    def _problem(self, point: Point, at: int) -> str:
        if [*point.fields] == ["time"]:
            return f'invalid field name: input field "time" on measurement "{point.measurement}" is invalid'
        for name, value in point.fields.items():
            kind = KINDS[type(value)]
            stored = self.types.get((point.measurement, name), {}).get(self._shard(at), kind)
            if stored != kind:
                names = {"double": "float", "long": "integer"}
                return (
                    f'field type conflict: input field "{name}" on measurement "{point.measurement}" is type'
                    f" {names.get(kind, kind)}, already exists as type {names.get(stored, stored)}"
                )
        return ""

    def _store(self, point: Point, at: int) -> None:
        fields = self.series.setdefault((point.measurement, point.tags), {})
        for name, value in point.fields.items():
            if name != "time":
                self.types.setdefault((point.measurement, name), {})[self._shard(at)] = KINDS[type(value)]
                fields.setdefault(name, {})[at] = value

    def read(
        self, start: int, stop: int, chosen: Chosen
    ) -> Iterator[tuple[Mapping[str, Any], str, Sequence[tuple[int, Any]]]]:
        """A field's type is that of the first shard: values of others, in later shards, are not given."""
        shards = range(self._shard(start), self._shard(stop - 1) + 1)
        for (measurement, tags), fields in sorted(self.series.items(), key=lambda one: one[0]):
            for name in sorted(name for owner, name in self.types if owner == measurement):
                key = {"_field": name, "_measurement": measurement, **dict(tags)}
                kinds = [kind for shard, kind in sorted(self.types[measurement, name].items()) if shard in shards]
                if kinds and chosen(key):
                    points = sorted((at, value) for at, value in fields.get(name, {}).items() if start <= at < stop)
                    yield key, kinds[0], [(at, value) for at, value in points if KINDS[type(value)] == kinds[0]]

    def delete(self, start: int, stop: int, wanted: Mapping[str, str]) -> None:
        for (measurement, tags), fields in self.series.items():
            if wanted.items() <= {"_measurement": measurement, **dict(tags)}.items():
                for name, values in fields.items():
                    fields[name] = {at: value for at, value in values.items() if not start <= at < stop}
