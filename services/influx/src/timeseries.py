"""What can be done with buckets and points, on any store."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from operator import attrgetter
from typing import NoReturn, TypeVar

from heartguard.errors import Forbidden, Invalid, NotFound, ServiceError
from heartguard.models.base import UNSET, UnsetType
from heartguard.models.common import Detail
from heartguard.models.timeseries import (
    Bucket,
    BucketCreate,
    QueryRequest,
    QueryResult,
    Result,
    WriteRequest,
)
from heartguard.timestamps import SECOND
from heartguard.tokens import Claims

from . import tenancy
from .check import MAX_DETAILS, Check
from .culprits import unreadable
from .errors import BucketExists, PartlyWritten, TooManyBuckets, Unreadable, WrongFieldType
from .gathering import Points, gather
from .heads import Heads
from .line_protocol import Entry, LineBatch
from .partial import PartialWrite
from .points import Rules, shown
from .query_places import QueryPlaces
from .store import TYPES, BucketGone, LineStore, Selection, Store, StoredBucket, TypeConflict
from .survey import survey
from .times import MAX_TIME, MAX_WINDOW, MIN_TIME, TimeBounds, format_time, parse_duration, parse_moment

MIN_RETENTION = 3600

_PARTS = (attrgetter("measurement"), attrgetter("tags"), attrgetter("fields"))

T = TypeVar("T")


class TimeSeries:
    """The service's work. ``clock`` gives nanoseconds since the epoch.

    ``max_buckets`` and ``max_queries`` (at once) are per organization. Buckets that are made at the same moment can be
    a few more.
    """

    def __init__(
        self,
        store: Store,
        bounds: TimeBounds,
        *,
        max_buckets: int = 10,
        max_queries: int = 2,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._bounds = bounds
        self._max_buckets = max_buckets
        self._clock = clock
        self._heads = Heads()
        self._places = QueryPlaces(max_queries)

    def create_bucket(self, request: BucketCreate, caller: Claims) -> Bucket:
        name = tenancy.writable(request.bucket, caller)
        if 0 < request.retention_seconds < MIN_RETENTION:
            message = f"is 0 (for ever) or at least {MIN_RETENTION}"
            raise Invalid([Detail(path="/retention_seconds", message=message)])
        if len({bucket.name for bucket in self._store.buckets(caller.org_id)} - {name}) >= self._max_buckets:
            raise TooManyBuckets(self._max_buckets)
        made = self._store.create_bucket(
            caller.org_id,
            name,
            retention_seconds=request.retention_seconds,
            description=None if isinstance(request.description, UnsetType) else request.description,
        )
        if made is None:
            raise BucketExists
        return _answer(made)

    def buckets(self, caller: Claims) -> list[Bucket]:
        """The organization's buckets, by name; its default one is always among them."""
        self._open(caller.org_id, tenancy.default_bucket(caller.org_id))
        return [_answer(bucket) for bucket in self._store.buckets(caller.org_id)]

    def drop_bucket(self, name: str, caller: Claims) -> None:
        """Drop a bucket and its points. The default one comes back, empty, when it is next used."""
        if not self._store.drop_bucket(caller.org_id, tenancy.readable(name, caller)):
            raise NotFound("There is no such bucket")

    def write(self, request: WriteRequest, caller: Claims) -> int:
        """Store a batch durably, all of it or nothing; how many points it had."""
        tenancy.check_organization(request.org, caller)
        name = tenancy.writable(request.bucket, caller)
        return self._with_bucket(caller.org_id, name, lambda bucket: self._write(request, caller, bucket))

    def write_influx(self, request: WriteRequest, caller: Claims) -> None:
        """Store the good points of a batch durably; :class:`.errors.LeftOut` names the others, once that is done."""
        tenancy.check_organization(request.org, caller)
        name = tenancy.writable(request.bucket, caller)
        self._with_bucket(caller.org_id, name, lambda bucket: self._write_good(request, caller, bucket))

    def query(self, request: QueryRequest, caller: Claims) -> QueryResult:
        name = tenancy.readable(request.bucket, caller)
        with self._places.of(caller.org_id):
            rows = self._with_bucket(
                caller.org_id, name, lambda bucket: self._store.select(bucket, self._selection(request, caller, bucket))
            )
        results = [Result(time=format_time(t), field=field, value=value, tags=tags) for t, field, value, tags in rows]
        return QueryResult(results=results, count=len(results))

    def _with_bucket(self, org_id: int, name: str, use: Callable[[StoredBucket], T]) -> T:
        """Use a bucket; once more where it turns out to have been dropped, and perhaps made anew, meanwhile."""
        try:
            return use(self._open(org_id, name))
        except BucketGone:
            try:
                return use(self._open(org_id, name))
            except BucketGone:
                raise NotFound("There is no such bucket") from None

    def _open(self, org_id: int, name: str) -> StoredBucket:
        """The bucket; the default one is made on its first use."""
        found = self._store.bucket(org_id, name)
        if found is None and name == tenancy.default_bucket(org_id):
            made = self._store.create_bucket(org_id, name, retention_seconds=0, description=None)
            found = made or self._store.bucket(org_id, name)
        if found is None:
            raise NotFound("There is no such bucket")
        return found

    def _write(self, request: WriteRequest, caller: Claims, bucket: StoredBucket) -> int:
        rules = self._rules(caller, bucket)
        check = _check(request, rules)
        try:
            return self._pass(request, bucket, rules) or self._gather(request, bucket, rules, check)
        except TypeConflict:
            self._name_conflicts(request, bucket, check)
            raise WrongFieldType(check.details()) from None
        except Unreadable as refused:
            raise unreadable(refused, entries(request), rules, check) from None
        except PartlyWritten as partly:
            partly.details = self._left_out(request, caller, bucket.name)
            raise

    def _write_good(self, request: WriteRequest, caller: Claims, bucket: StoredBucket) -> None:
        rules = self._rules(caller, bucket)
        conflict = False
        try:
            if self._pass(request, bucket, rules):
                return
        except TypeConflict:
            conflict = True
        except (PartlyWritten, Unreadable):  # looked into below, where the same is sent again
            pass

        def reopen() -> tuple[StoredBucket, Rules]:
            found = self._open(caller.org_id, bucket.name)
            return found, self._rules(caller, found)

        names: dict[int, str] = {}
        partial = PartialWrite(self._store, bucket, self._heads, rules, _root(request), reopen, names)
        partial.write(_some_entries(request, names), conflict=conflict)

    def _rules(self, caller: Claims, bucket: StoredBucket) -> Rules:
        now = self._clock()
        earliest = self._bounds.earliest
        return Rules(
            user_id=tenancy.own_points_only(caller),
            received=now,
            earliest=earliest,
            oldest=max(earliest, _oldest(bucket, now)),
            newest=self._bounds.newest(now),
        )

    def _left_out(self, request: WriteRequest, caller: Claims, name: str) -> list[Detail]:
        """The points that break a rule by what the store knows now; none where it does not tell in time."""
        with suppress(ServiceError, BucketGone):
            bucket = self._open(caller.org_id, name)
            check = _check(request, self._rules(caller, bucket))
            for entry in entries(request):
                if not isinstance(entry, Detail):
                    check.judge(*entry)
            self._name_conflicts(request, bucket, check)
            return check.details()
        return []

    def _pass(self, request: WriteRequest, bucket: StoredBucket, rules: Rules) -> int:
        """Hand plain line protocol on as it is, to a store that takes it; how many points it had, else 0."""
        if not isinstance(request, LineBatch) or not isinstance(self._store, LineStore):
            return 0
        found = survey(request.lines, request.precision, rules)
        if found is None:
            return 0
        self._store.write_lines(bucket, request.lines, request.precision, found.types, found.values)
        return found.points

    def _gather(self, request: WriteRequest, bucket: StoredBucket, rules: Rules, check: Check) -> int:
        points = _in_columns(request)
        gathered = points and gather(points, rules, self._heads)
        if gathered is None:
            self._refuse(request, bucket, check)
        batch = self._store.batch(bucket)
        for column in gathered.columns:
            batch.add(*column)
        batch.write()
        return gathered.points

    def _refuse(self, request: WriteRequest, bucket: StoredBucket, check: Check) -> NoReturn:
        """Say everything that is wrong with the batch."""
        count = 0
        for entry in entries(request):
            count += 1
            if isinstance(entry, Detail):
                check.found(entry)
            else:
                check.judge(*entry)
            if check.full:
                break
        check.refuse_foreign()
        if not count:
            raise Invalid([Detail(path="/lines", message="the batch holds no points")])
        self._name_conflicts(request, bucket, check)
        raise Invalid(check.details(), check.summary)

    def _name_conflicts(self, request: WriteRequest, bucket: StoredBucket, check: Check) -> None:
        """Find every point that gives a field another type than the stored one, or than the batch's first."""
        if check.full:
            return
        measurements = {entry[1] for entry in entries(request) if not isinstance(entry, Detail)}
        known = dict(self._store.field_types(bucket, measurements))
        for entry in entries(request):
            if check.full:
                return
            if isinstance(entry, Detail):
                continue
            index, measurement, _, fields, _ = entry
            for field, value in fields.items():
                given = TYPES[type(value)]
                expected = known.setdefault((measurement, field), given)
                if given != expected:
                    message = f"the field {shown(field)} is of type {expected}, not {given}"
                    check.found(Detail(path=check.path(index, "fields", field), message=message))

    def _selection(self, request: QueryRequest, caller: Claims, bucket: StoredBucket) -> Selection:
        now = self._clock()
        start, stop = parse_moment(request.range_start, now), parse_moment(request.range_stop, now)
        if start >= stop:
            raise Invalid([Detail(path="/range_start", message="is not before range_stop")])
        return Selection(
            measurement=request.measurement,
            start=max(start, _oldest(bucket, now)),
            stop=min(stop, MAX_TIME + 1),
            fields=request.fields or None,
            tags=_own_tags(request, caller),
            aggregate=request.aggregate or None,
            window=min(parse_duration(request.window), MAX_WINDOW),
            limit=request.limit,
        )


def entries(request: WriteRequest) -> Iterable[Entry | Detail]:
    """The points of a batch, whatever form it came in."""
    return request.entries() if isinstance(request, LineBatch) else _points(request)


def _some_entries(request: WriteRequest, names: dict[int, str]) -> Iterable[Entry | Detail | int]:
    """The same; of more bad lines than are named, only how many there are. ``names`` is given their measurements."""
    return request.some_entries(MAX_DETAILS, names) if isinstance(request, LineBatch) else _points(request)


def _root(request: WriteRequest) -> str:
    return "/lines" if isinstance(request, LineBatch) else "/points"


def _check(request: WriteRequest, rules: Rules) -> Check:
    return Check(_root(request), rules)


def _points(request: WriteRequest) -> Iterator[Entry]:
    for index, (point, at) in enumerate(zip(request.points, request.times, strict=True)):
        yield index, point.measurement, point.tags, point.fields, at


def _in_columns(request: WriteRequest) -> Points | None:
    """The points, if all that is there are points."""
    if not isinstance(request, LineBatch):
        measurements, tags, fields = (list(map(part, request.points)) for part in _PARTS)
        return Points(measurements, tags, fields, request.times)
    found = list(request.entries())
    if not found or any(isinstance(entry, Detail) for entry in found):
        return None
    _, measurements, tags, fields, times = zip(*found, strict=True)
    return Points(measurements, tags, fields, times)


def _oldest(bucket: StoredBucket, now: int) -> int:
    """The first time that the bucket still keeps."""
    return max(MIN_TIME, now - bucket.retention_seconds * SECOND) if bucket.retention_seconds else MIN_TIME


def _own_tags(request: QueryRequest, caller: Claims) -> dict[str, str]:
    own = tenancy.own_points_only(caller)
    if own is None:
        return request.tags
    if request.tags.get(tenancy.USER_TAG, own) != own:
        raise Forbidden("You may only read points of your own user_id")
    return {**request.tags, tenancy.USER_TAG: own}


def _answer(bucket: StoredBucket) -> Bucket:
    return Bucket(
        bucket=bucket.name,
        retention_seconds=bucket.retention_seconds,
        created_at=bucket.created_at,
        description=UNSET if bucket.description is None else bucket.description,
    )
