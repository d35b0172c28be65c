"""``kill -9`` of the service and its stores amid uploads and removals: a sweep later everything agrees.

No object without a row, no row without an object; every file whose upload was acknowledged, and whose removal was not
asked for, is there with the right hash; none whose removal was acknowledged is.

``HEARTGUARD_UPLOADS=500`` stores that many, by each store.
"""

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3
from sqlalchemy import text

from heartguard.database import Database
from heartguard.local.files import private_folder
from heartguard.settings import load
from services.media.src.app import open_store
from services.media.src.mending import Mender
from services.media.src.settings import Settings

from ..callers import authorization
from ..killing import Site, kill
from .conftest import STORES, make_bucket, png, start_fake_gcs

UPLOADS = int(os.environ.get("HEARTGUARD_UPLOADS", "12"))
CLIENTS = 3
LONGEST_LOAD = 0.5
"""Seconds until the next kill, at the most."""
PAUSE = 0.1
"""Seconds between two uploads of a client, at the most."""
LARGEST = 1024 * 1024


class Clients:
    """Store files and remove some of them again; know what has been acknowledged."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._pool = urllib3.PoolManager(maxsize=CLIENTS, retries=False, timeout=20)
        self.kept: dict[str, str] = {}
        self.removed: set[str] = set()
        self.statuses: set[int] = set()
        self.cut_short = 0
        self.stop = False

    def work(self, seed: int) -> None:
        chance = random.Random(seed)
        while len(self.kept) + len(self.removed) < UPLOADS and not self.stop:
            time.sleep(chance.uniform(0, PAUSE))
            content = png(chance.randbytes(chance.randrange(1, LARGEST)))
            answer = self._ask("POST", "/media/upload", fields={"file": ("a.png", content, "image/png")})
            if answer is None or answer.status != 201:
                continue
            id_ = answer.json()["id"]
            self.kept[id_] = hashlib.sha256(content).hexdigest()
            if chance.random() < 0.4:
                del self.kept[id_]
                while (answer := self._ask("DELETE", f"/media/items/{id_}")) is None or answer.status == 503:
                    time.sleep(0.05)
                assert answer.status in {204, 404}
                self.removed.add(id_)

    def check(self) -> None:
        for id_, sha256 in self.kept.items():
            link = self._ask("GET", f"/media/items/{id_}/download")
            assert link is not None
            assert link.status == 200, link.data
            found = self._pool.request("GET", link.json()["url"])
            assert hashlib.sha256(found.data).hexdigest() == sha256
        for id_ in self.removed:
            gone = self._ask("GET", f"/media/items/{id_}")
            assert gone is not None
            assert gone.status == 404

    def _ask(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse | None:
        """The answer; None where the service went away meanwhile."""
        try:
            answer = self._pool.request(method, self._url + path, headers=authorization(1), **options)
        except urllib3.exceptions.HTTPError:
            self.cut_short += 1
            return None
        self.statuses.add(answer.status)
        return answer


class Scene:
    """The service, what it needs, and what can be killed of it."""

    def __init__(self, folder: Path, ports: Callable[[], int], account: Path | None) -> None:
        self.environ = {**STORES, "HEARTGUARD_DATA": str(folder / "data"), "MEDIA_SWEEP_SECONDS": "1"}
        self._gcs: Any = None
        if account is not None:
            self._gcs_port, self._gcs_folder = ports(), folder / "gcs"
            self._gcs = start_fake_gcs(self._gcs_port, self._gcs_folder)
            url = f"http://127.0.0.1:{self._gcs_port}"
            make_bucket(url)
            self.environ |= {"GOOGLE_APPLICATION_CREDENTIALS": str(account), "STORAGE_EMULATOR_HOST": url}
        self.site = Site(folder, "media", ports(), self.environ)
        self.kills = [self.site.kill_service, self.site.kill_service, self.site.kill_postgres]
        if account is not None:
            self.kills.append(self.kill_gcs)

    def kill_gcs(self) -> None:
        kill(self._gcs.pid)
        self._gcs.wait(10)
        self._gcs = start_fake_gcs(self._gcs_port, self._gcs_folder)

    def sweep(self) -> tuple[list[tuple[str, str]], list[str]]:
        """Rows with their states, and objects, after a sweep that takes nobody to be still at work."""
        settings = load(Settings, {**self.environ, "DATABASE_URL": self.site.database_url})
        store, database = open_store(settings), Database(settings.database_url, service="tests")
        try:
            mender = Mender(database, store, settings.folder / "incoming", grace=0)
            mender.finish()
            mender.compare()
            with database.transaction(1) as tx:
                query = text("SELECT object_name, state FROM heartguard_core.media_items ORDER BY object_name")
                rows = [(row.object_name, row.state) for row in tx.execute(query)]
            return rows, [str(name) for page in store.names() for name in page]
        finally:
            database.close()

    def stop(self) -> None:
        self.site.stop()
        if self._gcs is not None:
            self._gcs.kill()
            self._gcs.wait()


@pytest.fixture(params=["local", "gcs"])
def scene(
    request: pytest.FixtureRequest, short_folder: Path, free_port: Callable[[], int], service_account: Path
) -> Iterator[Scene]:
    scene = Scene(private_folder(short_folder / "s"), free_port, service_account if request.param == "gcs" else None)
    yield scene
    scene.stop()


def test_after_a_sweep_everything_agrees(scene: Scene) -> None:
    chance = random.Random(UPLOADS)
    clients = Clients(scene.site.port)
    kills = 0
    with ThreadPoolExecutor(CLIENTS) as pool:
        working = [pool.submit(clients.work, seed) for seed in range(CLIENTS)]
        end = time.monotonic() + UPLOADS * 10 + 60
        while not all(one.done() for one in working):
            if time.monotonic() > end:
                clients.stop = True
                raise AssertionError(f"the uploads do not go on: {clients.statuses}")
            time.sleep(chance.uniform(0.1, LONGEST_LOAD))
            chance.choice(scene.kills)()
            kills += 1
        for one in working:
            one.result()
    rows, objects = scene.sweep()
    assert [name for name, _ in rows] == objects
    assert {state for _, state in rows} <= {"stored"}
    assert {name.split("/")[2] for name in objects} >= clients.kept.keys()
    assert not {name.split("/")[2] for name in objects} & clients.removed
    clients.check()
    assert clients.statuses <= {200, 201, 204, 404, 503}
    assert clients.kept
    done = f"{len(clients.kept)} kept, {len(clients.removed)} removed"
    print(f"{kills} kills, {clients.cut_short} requests cut short, {done}")
