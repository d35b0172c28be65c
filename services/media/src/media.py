"""Storing, finding and removing files.

Row and object are never made or removed in one step, so each step leaves something that says what
has to follow: see :mod:`.mending`, which finishes what a crash has left.
"""

import mmap
import uuid
from pathlib import Path

from heartguard import audit
from heartguard.database import Database
from heartguard.errors import Forbidden, Unavailable
from heartguard.incoming import Incoming
from heartguard.models.media_item import MediaItem, SignedUrl
from heartguard.tokens import Claims

from . import db, formats
from .errors import NoSuchItem, WrongType
from .spool import Spool
from .store import Download, Store
from .uploads import read_upload


class Media:
    """The service's work. ``incoming`` is where files lie while they come in; sizes are in bytes."""

    def __init__(self, database: Database, store: Store, incoming: Path, *, max_file: int, max_body: int) -> None:
        self._database = database
        self._store = store
        self._incoming = incoming
        self._max_file = max_file
        self._max_body = max_body

    def upload(self, incoming: Incoming, caller: Claims) -> MediaItem:
        with Spool(self._incoming, self._max_file, stays=self._store.stays) as content:
            said = read_upload(incoming, content, self._max_body)
            self._store.prepare(content)
            type_ = formats.media_type(said.content_type)
            if not _matches(type_, content):
                raise WrongType
            item = db.NewItem(
                id=uuid.uuid4(),
                org_id=caller.org_id,
                owner_id=caller.user_id,
                file_name=said.file_name,
                content_type=type_,
                size=content.size,
                sha256=content.sha256,
            )
            return answer(self._keep(item, content))

    def item(self, id_: uuid.UUID, caller: Claims) -> MediaItem:
        return answer(self._find(id_, caller))

    def link(self, id_: uuid.UUID, caller: Claims, origin: str) -> SignedUrl:
        """Where the file can be had without a token for a while."""
        item = self._find(id_, caller)
        download = Download(name=item.name, file_name=item.file_name, content_type=item.content_type, origin=origin)
        link = self._store.sign(download)
        audit.emit(item=str(item.id), owner=item.name.owner)
        return SignedUrl(url=link.url, method="GET", expires_at=link.expires_at)

    def delete(self, id_: uuid.UUID, caller: Claims) -> None:
        """Remove the item for all, then its object, then its row. Where that fails midway it can be said again."""
        with self._database.transaction(caller.org_id) as tx:
            name = db.mark_deleting(tx, caller.org_id, id_)
            if name is not None:
                audit.record(tx, item=str(id_), owner=name.owner)
        if name is None:
            raise NoSuchItem
        self._store.remove(name)
        with self._database.transaction(caller.org_id) as tx:
            db.forget(tx, name)

    def _find(self, id_: uuid.UUID, caller: Claims) -> db.Item:
        with self._database.transaction(caller.org_id) as tx:
            item = db.find(tx, caller.org_id, id_, own_items_only(caller))
        if item is None:
            raise NoSuchItem
        return item

    def _keep(self, item: db.NewItem, content: Spool) -> db.Item:
        with self._database.transaction(item.org_id) as tx:
            db.insert(tx, item)
        # Should one of these fail, the row says what is left: the sweeper takes it back.
        self._store.put(item.name, content, item.content_type)
        with self._database.transaction(item.org_id) as tx:
            stored = db.mark_stored(tx, item)
            if stored is not None:
                audit.record(
                    tx, item=str(item.id), owner=item.name.owner, content_type=item.content_type, size=item.size,
                    sha256=item.sha256.hex(),
                )  # fmt: skip
        if stored is None:
            self._store.remove(item.name)
            raise Unavailable("Storing the file took too long")
        return stored


def own_items_only(caller: Claims) -> int | None:
    """The owner whose items are all that the caller may see; None where the whole organization's are."""
    return caller.user_id if caller.role == "user" else None


def wanted_owner(caller: Claims, owner_id: int | None) -> int | None:
    """Whose items to list: those of ``owner_id``, if the caller may see them."""
    own = own_items_only(caller)
    if own is not None and owner_id not in {None, own}:
        raise Forbidden("You may only list your own items")
    return owner_id if own is None else own


def _matches(type_: str, content: Spool) -> bool:
    with mmap.mmap(content.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return formats.matches(type_, mapped)


def answer(item: db.Item) -> MediaItem:
    return MediaItem(
        id=item.id,
        file_name=item.file_name,
        content_type=item.content_type,
        size=item.size,
        sha256=item.sha256.hex(),
        owner_id=item.owner_id,
        created_at=item.created_at,
    )
