"""Google Cloud Storage when it is away, slow to answer, or has something else than was sent."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heartguard.database import Database
from heartguard.errors import Unavailable
from services.media.src import db
from services.media.src.gcs_store import GcsStore
from services.media.src.names import ObjectName
from services.media.src.spool import Spool

from .conftest import BUCKET, PNG, Caller, fake_gcs, mender_of, objects_of, rows_of, running
from .test_media_mending import new_item


@pytest.fixture
def store(gcs_url: str, service_account: Path) -> GcsStore:
    return GcsStore(BUCKET, service_account, ttl=900, connections=2, endpoint=gcs_url)


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path, 100) as content:
        content.write(PNG)
        yield content


@pytest.fixture
def name(org: int) -> ObjectName:
    return new_item(org).name


def test_an_object_keeps_its_hash(store: GcsStore, name: ObjectName, content: Spool) -> None:
    store.put(name, content, "image/png")
    blob = store._bucket.get_blob(str(name))
    assert blob is not None
    assert blob.metadata == {"sha256": content.sha256.hex()}
    assert blob.content_type == "image/png"


def test_an_attempt_that_came_through_unheard_is_taken_for_what_it_was(
    store: GcsStore, name: ObjectName, content: Spool
) -> None:
    store.put(name, content, "image/png")
    store.put(name, content, "image/png")
    assert store.has(name)


def test_nothing_is_replaced(store: GcsStore, name: ObjectName, content: Spool) -> None:
    store._bucket.blob(str(name)).upload_from_string(b"another")
    with pytest.raises(Unavailable):
        store.put(name, content, "image/png")
    assert not store.has(name)  # what is there is not what the row will say


def test_what_arrives_damaged_is_not_kept(
    store: GcsStore, name: ObjectName, content: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = base64.b64encode(b"1234").decode()
    monkeypatch.setattr("services.media.src.gcs_store._crc32c", lambda _file: wrong)
    with pytest.raises(Unavailable):
        store.put(name, content, "image/png")
    assert not store.has(name)


def test_removing_twice_is_as_good(store: GcsStore, name: ObjectName, content: Spool) -> None:
    store.put(name, content, "image/png")
    store.remove(name)
    store.remove(name)
    assert not store.has(name)


def test_names_that_are_none_of_ours_are_left_alone(store: GcsStore) -> None:
    store._bucket.blob("org_1/notes.txt").upload_from_string(b"x")
    store._bucket.blob("another").upload_from_string(b"x")
    assert not [name for page in store.names() for name in page if "notes" in str(name)]


def test_a_store_that_is_away_and_comes_back(
    url_for: Callable[[str], str],
    service_account: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
    database: Database,
    org: int,
) -> None:
    port = free_port()
    environ = {
        "DATABASE_URL": url_for("media"),
        "HEARTGUARD_DATA": str(tmp_path),
        "GOOGLE_APPLICATION_CREDENTIALS": str(service_account),
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
    }
    with running(environ) as app:
        admin = Caller(app, org)
        assert admin.send("GET", "/media/ready").status_code == 503
        assert admin.upload().status_code == 503
        assert admin.items() == []
        with fake_gcs(port):
            assert admin.send("GET", "/media/ready").status_code == 200
            kept = admin.stored()
            removed = admin.stored()
        assert admin.send("DELETE", f"/media/items/{removed}").status_code == 503
        assert admin.items() == [kept]
        with fake_gcs(port):
            mender = mender_of(app)
            mender._grace = 0
            mender.finish()
            assert [state for _, state in rows_of(database, org)] == [db.STORED]
            assert objects_of(app, org) == []  # its memory was lost with it
            mender.compare()
            assert admin.items() == []
            assert [state for _, state in rows_of(database, org)] == [db.LOST]
