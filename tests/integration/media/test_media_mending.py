"""Whatever step was the last before a crash, one sweep later rows and objects agree again. On both stores."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from heartguard.database import Database
from heartguard.errors import Unavailable
from services.media.src import db, mending, spool
from services.media.src.mending import Mender
from services.media.src.names import ObjectName
from services.media.src.spool import Spool

from .conftest import PNG, Caller, mender_of, objects_of, rows_of, store_of


@pytest.fixture
def mender(app: Flask, database: Database) -> Mender:
    """A sweeper that takes nobody to be still at work."""
    return Mender(database, store_of(app), mender_of(app)._incoming, grace=0)


def new_item(org_id: int) -> db.NewItem:
    return db.NewItem(
        id=uuid.uuid4(),
        org_id=org_id,
        owner_id=1,
        file_name="a.png",
        content_type="image/png",
        size=70,
        sha256=bytes(32),
    )


def put(app: Flask, name: ObjectName) -> None:
    with Spool(mender_of(app)._incoming, 1000) as content:
        content.write(PNG)
        store_of(app).put(name, content, "image/png")


def agree(caller: Caller, database: Database) -> bool:
    """Whether each row has its object and each object its row, and all rows are in the lists."""
    rows = rows_of(database, caller.org_id)
    listed = sorted(caller.items("?limit=200"))
    return (
        [name for name, _ in rows] == objects_of(caller.app, caller.org_id)
        and {state for _, state in rows} <= {"stored"}
        and sorted(name.split("/")[2] for name, _ in rows) == listed
    )


def test_an_upload_that_ended_before_its_object(admin: Caller, database: Database, mender: Mender) -> None:
    with database.transaction(admin.org_id) as tx:
        db.insert(tx, new_item(admin.org_id))
    assert admin.items() == []
    mender.sweep()
    assert rows_of(database, admin.org_id) == []


def test_an_upload_that_ended_after_its_object(admin: Caller, database: Database, mender: Mender) -> None:
    kept = admin.stored()
    item = new_item(admin.org_id)
    with database.transaction(admin.org_id) as tx:
        db.insert(tx, item)
    put(admin.app, item.name)
    assert admin.items() == [kept]
    assert admin.send("GET", f"/media/items/{item.id}").status_code == 404
    assert admin.send("DELETE", f"/media/items/{item.id}").status_code == 404
    mender.sweep()
    assert admin.items() == [kept]
    assert agree(admin, database)


@pytest.mark.parametrize("object_is_gone", [False, True])
def test_a_removal_that_came_to_no_end(admin: Caller, database: Database, mender: Mender, object_is_gone: bool) -> None:
    kept, removed = admin.stored(), admin.stored()
    with database.transaction(admin.org_id) as tx:
        name = db.mark_deleting(tx, admin.org_id, uuid.UUID(removed))
    assert name is not None
    if object_is_gone:
        store_of(admin.app).remove(name)
    assert admin.items() == [kept]
    assert admin.send("GET", f"/media/items/{removed}").status_code == 404
    mender.sweep()
    assert admin.items() == [kept]
    assert agree(admin, database)


def test_a_removal_can_be_said_again_where_it_came_to_no_end(admin: Caller, database: Database) -> None:
    id_ = admin.stored()
    with database.transaction(admin.org_id) as tx:
        db.mark_deleting(tx, admin.org_id, uuid.UUID(id_))
    assert admin.send("DELETE", f"/media/items/{id_}").status_code == 204
    assert agree(admin, database)
    assert admin.send("DELETE", f"/media/items/{id_}").status_code == 404


def test_who_is_at_work_is_left_alone(admin: Caller, app: Flask, database: Database) -> None:
    item = new_item(admin.org_id)
    with database.transaction(admin.org_id) as tx:
        db.insert(tx, item)
    mender_of(app).sweep()
    assert rows_of(database, admin.org_id) == [(str(item.name), "pending")]
    with database.transaction(admin.org_id) as tx:
        db.forget(tx, item.name)


def test_an_object_without_a_row_is_removed(admin: Caller, database: Database, mender: Mender) -> None:
    kept = admin.stored()
    put(admin.app, new_item(admin.org_id).name)
    assert not agree(admin, database)
    mender.compare()
    assert admin.items() == [kept]
    assert agree(admin, database)


def test_a_row_without_its_object_is_hidden_until_that_comes_back(
    admin: Caller, database: Database, mender: Mender
) -> None:
    kept, lost = admin.stored(), admin.stored()
    [name] = [ObjectName.parse(name) for name in objects_of(admin.app, admin.org_id) if lost in name]
    assert name is not None
    store_of(admin.app).remove(name)
    mender.compare()
    assert admin.items() == [kept]
    assert [state for _, state in rows_of(database, admin.org_id)].count("lost") == 1
    mender.compare()
    put(admin.app, name)
    mender.compare()
    assert sorted(admin.items()) == sorted([kept, lost])
    assert agree(admin, database)


def test_files_are_not_lost_while_their_directory_is_away(local: Flask, org: int, database: Database) -> None:
    admin = Caller(local, org)
    kept = admin.stored()
    link = admin.link(kept)["url"]
    root = store_of(local)._root  # type: ignore[attr-defined]
    elsewhere = root.rename(root.with_name("elsewhere"))
    try:
        with pytest.raises(Unavailable):
            mender_of(local).compare()
        assert admin.upload().status_code == 503
        assert admin.fetch(link).status == 503
        assert admin.items() == [kept]
    finally:
        elsewhere.rename(root)
    assert admin.fetch(link).data == PNG
    assert tuple(sorted(state for _, state in rows_of(database, org))) == ("pending", "stored")


def test_another_database_s_objects_are_not_removed(
    admin: Caller, database: Database, mender: Mender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "SURPLUS", 0)
    monkeypatch.setattr(db, "known_after", lambda *_: [])
    admin.stored()
    before = objects_of(admin.app, admin.org_id)
    mender.compare()
    assert objects_of(admin.app, admin.org_id) == before


def test_all_is_compared_once_an_hour(admin: Caller, mender: Mender, superuser: Any) -> None:
    mender.sweep()
    put(admin.app, new_item(admin.org_id).name)
    mender.sweep()
    assert len(objects_of(admin.app, admin.org_id)) == 1
    make_due(superuser)
    mender.sweep()
    assert objects_of(admin.app, admin.org_id) == []


def left_deleting(caller: Caller, database: Database) -> str:
    """The name of an object whose removal came to no end."""
    id_ = caller.stored()
    with database.transaction(caller.org_id) as tx:
        name = db.mark_deleting(tx, caller.org_id, uuid.UUID(id_))
    return str(name)


def cannot_be_removed(app: Flask, name: str) -> Path:
    """A file of somebody else's, beside the object's: their folder will not go."""
    file = mender_of(app)._incoming.parent / "objects" / Path(name).parent / ".not ours"
    file.touch()
    return file


def make_due(superuser: Any) -> None:
    with superuser.transaction() as tx:
        tx.execute(text("UPDATE heartguard_core.media_sweeps SET begun_at = begun_at - interval '61 min'"))


def test_an_object_that_cannot_be_removed_keeps_nothing_else_from_being_mended(
    local: Flask, org: int, database: Database, superuser: Any
) -> None:
    admin, mender = Caller(local, org), Mender(database, store_of(local), mender_of(local)._incoming, grace=0)
    mender.sweep()
    stuck, removed = left_deleting(admin, database), left_deleting(admin, database)
    surplus = [new_item(org).name for _ in range(2)]
    for name in surplus:
        put(local, name)
    theirs = [cannot_be_removed(local, stuck), cannot_be_removed(local, str(min(surplus)))]
    make_due(superuser)
    mender.sweep()
    assert rows_of(database, org) == [(stuck, "deleting")]
    assert removed not in objects_of(local, org)
    assert str(max(surplus)) not in objects_of(local, org)
    for file in theirs:
        file.unlink()
    mender.sweep()
    assert rows_of(database, org) == objects_of(local, org) == []


def test_objects_that_cannot_be_removed_do_not_fill_the_page_for_ever(
    local: Flask, org: int, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "PAGE", 2)
    admin, mender = Caller(local, org), Mender(database, store_of(local), mender_of(local)._incoming, grace=0)
    stuck = sorted(left_deleting(admin, database) for _ in range(4))
    theirs = [cannot_be_removed(local, name) for name in stuck]
    for _ in range(3):
        left_deleting(admin, database)
    mender.finish()
    assert rows_of(database, org) == [(name, "deleting") for name in stuck]
    for file in theirs:
        file.unlink()
    mender.finish()
    assert rows_of(database, org) == objects_of(local, org) == []


def test_a_comparison_that_failed_is_tried_again_in_the_next_sweep(
    local: Flask, org: int, database: Database, superuser: Any
) -> None:
    mender = Mender(database, store_of(local), mender_of(local)._incoming, grace=0)
    put(local, new_item(org).name)
    make_due(superuser)
    root = store_of(local)._root  # type: ignore[attr-defined]
    elsewhere = root.rename(root.with_name("elsewhere"))
    try:
        with pytest.raises(Unavailable):
            mender.sweep()
    finally:
        elsewhere.rename(root)
    mender.sweep()
    assert objects_of(local, org) == []
    put(local, new_item(org).name)
    mender.sweep()
    assert len(objects_of(local, org)) == 1
    mender.compare()


@pytest.mark.parametrize("away", ["local", "gcs"])
def test_what_is_left_is_not_tried_one_by_one_while_the_store_is_away(
    away: str, org: int, database: Database, request: pytest.FixtureRequest
) -> None:
    app = request.getfixturevalue(away)
    admin = Caller(app, org)
    for _ in range(3):
        left_deleting(admin, database)
    asked: list[ObjectName] = []

    class Away(Breaking):
        def remove(self, name: ObjectName) -> None:
            asked.append(name)
            raise Unavailable

    with pytest.raises(Unavailable):
        Mender(database, Away(store_of(app), "check", done=False), Path(), grace=0).finish()  # type: ignore[arg-type]
    assert len(asked) == 1
    Mender(database, store_of(app), Path(), grace=0).finish()
    assert rows_of(database, org) == objects_of(app, org) == []


def test_more_than_a_page_is_compared(
    admin: Caller, database: Database, mender: Mender, monkeypatch: pytest.MonkeyPatch
) -> None:
    for page in (
        "services.media.src.mending.PAGE",
        "services.media.src.local_store.PAGE",
        "services.media.src.gcs_store.PAGE",
    ):
        monkeypatch.setattr(page, 2)
    for _ in range(5):
        admin.stored()
    mender.compare()
    assert len(admin.items()) == 5
    assert agree(admin, database)


def test_files_on_their_way_in_are_cleared_away_when_nobody_can_want_them(
    app: Flask, mender: Mender, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming: Path = mender_of(app)._incoming
    incoming.mkdir(exist_ok=True)
    left = incoming / "left.part"
    left.write_bytes(PNG)
    mender.sweep()
    assert left.exists()
    monkeypatch.setattr(spool, "ABANDONED", -1.0)
    mender.sweep()
    assert not left.exists()


def test_empty_folders_are_cleared_away_when_nobody_can_want_them(
    local: Flask, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mender_of(local)._incoming.parent / "objects" / "org_1" / "user_1" / str(uuid.uuid4())
    folder.mkdir(parents=True)
    mender_of(local).compare()
    assert folder.exists()
    monkeypatch.setattr("services.media.src.local_store.ABANDONED", -1.0)
    mender_of(local).compare()
    assert not folder.exists()


# Failures in the middle, by a store that is the real one but for the step that fails


class Breaking:
    """The store, of which one step fails, after or before it was done."""

    def __init__(self, store: Any, step: str, *, done: bool) -> None:
        self._store = store
        self._step = step
        self._done = done

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name != self._step:
            return found

        def broken(*arguments: Any) -> None:
            if self._done:
                found(*arguments)
            raise Unavailable

        return broken


@contextmanager
def breaking(app: Flask, step: str, *, done: bool) -> Iterator[None]:
    media = _media_of(app)
    whole = media._store
    media._store = Breaking(whole, step, done=done)
    try:
        yield
    finally:
        media._store = whole


def _media_of(app: Flask) -> Any:
    """The resource that the views are given."""
    handler = app.view_functions["upload"]
    return handler._sources["media"]()  # type: ignore[attr-defined]


@pytest.mark.parametrize("done", [False, True])
def test_a_store_that_fails_while_a_file_is_stored(
    admin: Caller, database: Database, mender: Mender, done: bool
) -> None:
    with breaking(admin.app, "put", done=done):
        answer = admin.upload()
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert admin.items() == []
    mender.sweep()
    assert rows_of(database, admin.org_id) == objects_of(admin.app, admin.org_id) == []


@pytest.mark.parametrize("done", [False, True])
def test_a_store_that_fails_while_a_file_is_removed(
    admin: Caller, database: Database, mender: Mender, done: bool
) -> None:
    id_ = admin.stored()
    with breaking(admin.app, "remove", done=done):
        assert admin.send("DELETE", f"/media/items/{id_}").status_code == 503
    assert admin.items() == []
    mender.sweep()
    assert rows_of(database, admin.org_id) == objects_of(admin.app, admin.org_id) == []


def test_an_upload_that_the_sweeper_gave_up(
    admin: Caller, database: Database, mender: Mender, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = _media_of(admin.app)
    whole = media._store.put

    def slow(*arguments: Any) -> None:
        mender.finish()
        whole(*arguments)

    monkeypatch.setattr(media._store, "put", slow)
    assert admin.upload().status_code == 503
    assert rows_of(database, admin.org_id) == objects_of(admin.app, admin.org_id) == []
