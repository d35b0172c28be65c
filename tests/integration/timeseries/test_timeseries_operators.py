"""What operators do to InfluxDB: give tokens with few rights, lose buckets, restore them."""

import pytest

from heartguard.errors import Unavailable
from services.influx.src.influx_client import InfluxClient

from .conftest import Caller, influx_only, running
from .influx import Influx

pytestmark = [pytest.mark.usefixtures("backend"), influx_only]
POINT = {"measurement": "m", "fields": {"f": 1.5}, "timestamp": "2024-06-01T10:00:00Z"}


def test_rights_on_all_buckets_are_enough(influx: Influx, org: int) -> None:
    """Such a token may not list organizations."""
    with influx.token_for_buckets() as token, running(influx.environ(INFLUX_TOKEN=token)) as app:
        admin = Caller(app, org)
        assert admin.send("GET", "/timeseries/ready").status_code == 200
        assert admin.write(POINT).status_code == 200
        assert admin.create(f"org_{org}_x").status_code == 201
        assert [row[2] for row in admin.rows()] == [1.5]
        assert admin.send("DELETE", f"/timeseries/buckets/org_{org}_x").status_code == 204


def test_a_token_that_may_make_no_bucket_is_not_ready(influx: Influx, admin: Caller) -> None:
    assert admin.write(POINT).status_code == 200  # so that there is a bucket, by which it can be told
    with influx.token_for_buckets("read") as token:
        client = InfluxClient(influx.address.url, token, influx.address.org)
        try:
            with pytest.raises(Unavailable):
                client.check()
        finally:
            client.close()


def test_a_default_bucket_that_was_lost_is_made_again(admin: Caller, influx: Influx, org: int) -> None:
    for use in (
        lambda: admin.write(POINT),
        lambda: admin.lines("m f=2 1"),
        admin.query,
        lambda: admin.query(aggregate="mean"),
        lambda: admin.send("GET", "/timeseries/buckets"),
    ):
        assert admin.write({**POINT, "fields": {"g": 1}}).status_code == 200
        influx.drop(influx.bucket(f"org_{org}")["id"])
        assert use().status_code == 200
        assert admin.write({**POINT, "fields": {"g": "another type"}}).status_code == 200
        influx.drop(influx.bucket(f"org_{org}")["id"])


def test_a_named_bucket_that_was_lost_is_a_404(admin: Caller, influx: Influx, org: int) -> None:
    name = f"org_{org}_x"
    assert admin.create(name).status_code == 201
    assert admin.write(POINT, bucket=name).status_code == 200
    influx.drop(influx.bucket(name)["id"])
    assert admin.write(POINT, bucket=name).status_code == 404
    assert admin.query(bucket=name).status_code == 404
    assert admin.create(name).status_code == 201
    assert admin.write({**POINT, "fields": {"f": "text"}}, bucket=name).status_code == 200
