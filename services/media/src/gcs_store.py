"""The store in Google Cloud Storage.

Every call has a time limit and is tried again for a while where that can help: a client whose store
is away hears of it within five seconds. An object is only ever made (``if_generation_match=0``), never replaced, so
trying again is safe.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

import google_crc32c
import requests
from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2.service_account import Credentials

from heartguard.errors import Unavailable

from .names import ObjectName, disposition
from .spool import Spool
from .store import PAGE, Download, Link

TIMEOUT = (2.0, 4.0)
"""Seconds to connect, and to wait for the next bytes."""
RETRY = DEFAULT_RETRY.with_delay(initial=0.2, maximum=2.0).with_timeout(3.0)
CHECK_TIMEOUT = (1.5, 1.5)
TOKEN_TIMEOUT = 4.0
UPLOAD_PIECE = 4 * 1024 * 1024
"""Bytes in one request of an upload of more than 8 MiB."""
_READ = 1024 * 1024


class GcsStore:
    """Implements :class:`.store.Store`. Links work for ``ttl`` seconds at most.

    ``key`` is the file with a service account's key, ``connections`` how many are kept. ``endpoint`` is where another
    server speaks the protocol; no token is shown to that one.
    """

    stays = False

    def __init__(self, bucket: str, key: Path, *, ttl: int, connections: int, endpoint: str | None = None) -> None:
        credentials = Credentials.from_service_account_file(str(key))
        self._signer = credentials
        self._ttl = timedelta(seconds=ttl)
        self._endpoint = endpoint
        session = AuthorizedSession(
            AnonymousCredentials() if endpoint else credentials,
            refresh_timeout=TOKEN_TIMEOUT,
        )
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=connections, pool_block=True)
        for scheme in ("https://", "http://"):
            session.mount(scheme, adapter)
        self._client = Client(
            project=credentials.project_id,
            credentials=session.credentials,
            _http=session,
            client_options={"api_endpoint": endpoint} if endpoint else None,
        )
        self._bucket = self._client.bucket(bucket)

    def prepare(self, content: Spool) -> None:
        """What is on its way to somebody else's disk need not be on ours."""

    def put(self, name: ObjectName, content: Spool, content_type: str) -> None:
        checksum = _crc32c(content.file)
        blob = self._blob(name)
        blob.metadata = {"sha256": content.sha256.hex()}
        with _failures():
            try:
                blob.upload_from_file(
                    content.file,
                    rewind=True,
                    size=content.size,
                    content_type=content_type,
                    if_generation_match=0,
                    crc32c_checksum_value=checksum,
                    timeout=TIMEOUT,
                    retry=RETRY,
                )
            except PreconditionFailed:  # the attempt before had come through, only its answer had not
                blob.reload(timeout=TIMEOUT, retry=RETRY)
        if blob.crc32c != checksum:
            self.remove(name)
            raise Unavailable("The file arrived damaged in the store")

    def remove(self, name: ObjectName) -> None:
        with _failures(), suppress(NotFound):
            self._blob(name).delete(timeout=TIMEOUT, retry=RETRY)

    def has(self, name: ObjectName) -> bool:
        with _failures():
            return bool(self._blob(name).exists(timeout=TIMEOUT, retry=RETRY))

    def names(self) -> Iterator[list[ObjectName]]:
        with _failures():
            listed = self._client.list_blobs(
                self._bucket,
                prefix="org_",
                page_size=PAGE,
                fields="items(name),nextPageToken",
                timeout=TIMEOUT,
                retry=RETRY,
            )
            for page in listed.pages:
                names = (ObjectName.parse(blob.name) for blob in page)
                yield [name for name in names if name is not None]

    def sign(self, download: Download) -> Link:
        url = self._blob(download.name).generate_signed_url(
            version="v4",
            method="GET",
            expiration=self._ttl,
            response_disposition=disposition(download.file_name),
            credentials=self._signer,
            api_access_endpoint=self._endpoint,
        )
        return Link(url=url, expires_at=_expiry(url))

    def check(self) -> None:
        with _failures():
            list(self._client.list_blobs(self._bucket, max_results=1, timeout=CHECK_TIMEOUT, retry=None))

    def _blob(self, name: ObjectName) -> Blob:
        return self._bucket.blob(str(name), chunk_size=UPLOAD_PIECE)


def _crc32c(file: IO[bytes]) -> str:
    """The checksum that the store keeps of its objects, in base64."""
    checksum = google_crc32c.Checksum()
    file.seek(0)
    while piece := file.read(_READ):
        checksum.update(piece)
    return base64.b64encode(checksum.digest()).decode()


def _expiry(url: str) -> datetime:
    """When the link ends, as it says itself."""
    query = parse_qs(urlsplit(url).query)
    signed_at = datetime.strptime(query["X-Goog-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return signed_at + timedelta(seconds=int(query["X-Goog-Expires"][0]))


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, requests.RequestException) as error:
        raise Unavailable("The store cannot be reached") from error
