"""Files on their way in."""

import hashlib
from pathlib import Path

import pytest

from heartguard.errors import ServiceError, Unavailable
from services.media.src.spool import Spool


def test_a_file_is_measured_and_hashed(tmp_path: Path) -> None:
    with Spool(tmp_path / "incoming", 10) as content:
        content.write(b"another")
        content.restart()
        content.write(b"con")
        content.write(b"tent")
        content.sync()
        assert (content.size, content.sha256) == (7, hashlib.sha256(b"content").digest())
        assert content.path.read_bytes() == b"content"
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("stays", [True, False])
def test_a_long_file_is_whole_wherever_it_goes(tmp_path: Path, stays: bool) -> None:
    pieces = [bytes([number]) * 300_000 for number in range(20)]
    with Spool(tmp_path, 10_000_000, stays=stays) as content:
        for _ in range(2):
            content.restart()
            for piece in pieces:
                content.write(piece)
        content.sync()
        assert content.path.read_bytes() == b"".join(pieces)
        assert content.sha256 == hashlib.sha256(b"".join(pieces)).digest()


def test_more_than_there_may_be_is_not_written(tmp_path: Path) -> None:
    with Spool(tmp_path, 5) as content:
        content.write(b"12345")
        with pytest.raises(ServiceError) as refused:
            content.write(b"6")
        assert refused.value.status == 413
        assert content.path.stat().st_size == 5


def test_one_that_was_moved_away_is_left_alone(tmp_path: Path) -> None:
    with Spool(tmp_path, 5) as content:
        content.write(b"12345")
        content.path.rename(tmp_path / "moved")
    assert (tmp_path / "moved").read_bytes() == b"12345"


def test_where_there_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable), Spool(tmp_path / "file", 5):
        pass
    with Spool(tmp_path, 5) as content:
        content.file.close()
        content.file = content.path.open("rb", buffering=0)  # which refuses writing as a full disk does
        with pytest.raises(Unavailable):
            content.write(b"1")
