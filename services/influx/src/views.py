"""The endpoints of section 7 of the contract."""

from heartguard.endpoints import Endpoints
from heartguard.models.timeseries import (
    Bucket,
    BucketCreate,
    Buckets,
    QueryRequest,
    QueryResult,
    WriteRequest,
    WriteResult,
)
from heartguard.policy import Audience
from heartguard.tokens import Claims

from .line_protocol import read_influx_lines, read_lines
from .timeseries import TimeSeries

MAX_BATCH = 16 * 1024 * 1024

endpoints = Endpoints("timeseries")


@endpoints.post(
    "/timeseries/write",
    audience=Audience.SIGNED_IN,
    audit="TIMESERIES_WRITE",
    max_body=MAX_BATCH,
    also={"text/plain": read_lines},
    errors={
        403: "The bucket or organization is not the caller's, or a point is another user's",
        404: "There is no such bucket",
        422: "The batch breaks the schema, a point is older than the retention, a field is stored with another"
        " type (`TS_002`), or the store cannot read a point; nothing was written, unless the message says of how many"
        " points that they were not stored",
    },
)
def write(batch: WriteRequest, caller: Claims, timeseries: TimeSeries) -> WriteResult:
    """Store a batch of points: all of them, durably, or none."""
    return WriteResult(success=True, inserted=timeseries.write(batch, caller))


@endpoints.post(
    "/timeseries/api/v2/write",
    audience=Audience.SIGNED_IN,
    audit="TIMESERIES_WRITE",
    max_body=MAX_BATCH,
    also={"text/plain": read_influx_lines},
    token_scheme=True,
    influx_errors=True,
    errors={
        400: "The body cannot be read, or none of its lines; nothing was stored",
        403: "The bucket or organization is not the caller's, or a point is another user's; nothing was stored",
        404: "There is no such bucket",
        413: "The batch is too large, or holds too much that is wrong to be looked through at once; send it in parts",
        422: "Some points were left out, and the others stored: the message says how many and why, `details` names all."
        " `TS_002` where all that is wrong is that fields are stored with another type",
    },
)
def write_influx(batch: WriteRequest, caller: Claims, timeseries: TimeSeries) -> None:
    """Store a batch as InfluxDB's own clients send it: line protocol, with its parameters and its statuses.

    Agents drop the whole batch that is answered with 400 or 422. So here, and only here, points that are wrong by
    themselves are left out, and the others are stored. `Authorization` may say `Token` in place of `Bearer`; the token
    is HeartGuard's.
    """
    timeseries.write_influx(batch, caller)


@endpoints.post("/timeseries/query", audience=Audience.SIGNED_IN, errors={404: "There is no such bucket"})
def query(question: QueryRequest, caller: Claims, timeseries: TimeSeries) -> QueryResult:
    """Points of one measurement, raw or in windows."""
    return timeseries.query(question, caller)


@endpoints.post(
    "/timeseries/buckets",
    audience=Audience.ADMIN,
    status=201,
    audit="BUCKET_CREATE",
    errors={409: "The bucket exists (`TS_001`), or there are as many as may be (TIMESERIES_MAX_BUCKETS)"},
)
def create_bucket(new: BucketCreate, caller: Claims, timeseries: TimeSeries) -> Bucket:
    """Make a bucket of the caller's organization."""
    return timeseries.create_bucket(new, caller)


@endpoints.get("/timeseries/buckets", audience=Audience.SIGNED_IN)
def list_buckets(caller: Claims, timeseries: TimeSeries) -> Buckets:
    """The buckets of the caller's organization."""
    return Buckets(buckets=timeseries.buckets(caller))


@endpoints.delete("/timeseries/buckets/{bucket}", audience=Audience.ADMIN, audit="BUCKET_DELETE")
def drop_bucket(bucket: str, caller: Claims, timeseries: TimeSeries) -> None:
    """Drop a bucket and all its points."""
    timeseries.drop_bucket(bucket, caller)
