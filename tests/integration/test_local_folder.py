"""The data folder, its private files, and the secrets of a first start."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from heartguard.local import dotenv, layout
from heartguard.local.errors import SetupError, explain
from heartguard.local.files import generated_secret, private_folder, write_private
from heartguard.local.layout import Layout
from heartguard.local.server import TooSlow, tail, wait_until
from heartguard.local.unprivileged import Account, _capability, account, setpriv
from heartguard.settings import ROOT, environment


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_closed_to_others_whatever_the_umask(short_folder: Path) -> None:
    before = os.umask(0)
    try:
        found = Layout.of({"HEARTGUARD_DATA": str(short_folder / "a" / "b")})
        found.prepare()
    finally:
        os.umask(before)
    assert {mode(path) for path in (found.root, found.secrets, found.logs)} == {0o700}
    found.prepare()


def test_the_default_and_relative_paths_count_from_the_root() -> None:
    assert Layout.of({}).root == (ROOT / ".heartguard").resolve()
    assert Layout.of({"HEARTGUARD_DATA": "here"}).root == (ROOT / "here").resolve()


@pytest.mark.parametrize("path", ["/tmp/a;b", "/tmp/a\nb", "/tmp/100%"])
def test_a_path_that_the_supervisor_cannot_read_is_refused(path: str) -> None:
    with pytest.raises(SetupError, match="HEARTGUARD_DATA"):
        Layout.of({"HEARTGUARD_DATA": path})


def test_a_path_too_long_is_refused(short_folder: Path) -> None:
    with pytest.raises(SetupError, match="too long"):
        Layout(short_folder / ("x" * 80)).prepare()


def test_a_folder_with_other_things_in_it_is_left_alone(short_folder: Path) -> None:
    short_folder.chmod(0o755)
    (short_folder / "mine").touch()
    with pytest.raises(SetupError, match="mine"):
        Layout(short_folder).prepare()
    assert mode(short_folder) == 0o755


def test_a_database_without_its_secrets_is_named_with_what_to_remove(short_folder: Path) -> None:
    (short_folder / "postgres" / "data").mkdir(parents=True)
    (short_folder / "postgres" / "data" / "PG_VERSION").write_text("18\n")
    (short_folder / "mine").touch()
    with pytest.raises(SetupError, match="half-made") as refused:
        Layout(short_folder).prepare()
    assert "not HeartGuard's" not in str(refused.value)
    assert str(short_folder / "secrets") in str(refused.value)
    assert str(refused.value).endswith(f"rm -r {short_folder / 'postgres'}")


def test_a_file_in_its_place_is_explained(short_folder: Path) -> None:
    (short_folder / "file").touch()
    with pytest.raises(SetupError, match="HEARTGUARD_DATA"):
        Layout(short_folder / "file").prepare()


def test_somebody_elses_folder_is_refused(short_folder: Path) -> None:
    folder = Path("/usr")
    if os.geteuid() == 0:
        folder = short_folder / "theirs"
        folder.mkdir()
        os.chown(folder, 65_533, 65_533)
    with pytest.raises(SetupError, match="belongs to the user"):
        Layout(folder).prepare()


def test_a_full_disk_is_refused(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "NEEDED_MB", 2**40)
    with pytest.raises(SetupError, match="disk is"):
        Layout(short_folder).prepare()


def test_one_command_at_a_time(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Layout(short_folder)
    monkeypatch.setattr(layout, "LOCK_TIMEOUT", 0.3)
    with found.lock(), pytest.raises(SetupError, match="Another command"), found.lock():
        pass
    monkeypatch.setattr(layout, "LOCK_TIMEOUT", 30)

    def wait_for_turn() -> None:
        with found.lock():
            pass

    with found.lock():
        waiting = threading.Thread(target=wait_for_turn)
        waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()


def test_errors_of_the_system_are_put_into_words() -> None:
    for number, words in (
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "Not allowed"),
        (errno.EIO, "Doing it failed"),
    ):
        assert words in str(explain(OSError(number, os.strerror(number)), "doing it"))


def test_private_files_are_whole_or_not_there(short_folder: Path) -> None:
    file = short_folder / "file"
    write_private(file, "one")
    write_private(file, "two")
    assert (file.read_text(), mode(file), list(short_folder.iterdir())) == ("two", 0o600, [file])
    (short_folder / "folder" / "full").mkdir(parents=True)
    with pytest.raises(SetupError, match="Writing"):
        write_private(short_folder / "folder", "three")
    assert sorted(short_folder.iterdir()) == [file, short_folder / "folder"]
    with pytest.raises(SetupError, match="Making the folder"):
        private_folder(file / "below")
    with pytest.raises(SetupError, match="Reading"):
        generated_secret(short_folder / "folder")


def test_the_first_start_makes_secrets_and_the_second_none(short_folder: Path) -> None:
    file = short_folder / ".env"
    made = dotenv.complete({}, file)
    assert list(made) == ["JWT_SECRET", "BOOTSTRAP_ADMIN_EMAIL", "BOOTSTRAP_ADMIN_PASSWORD"]
    assert mode(file) == 0o600
    assert len(made["JWT_SECRET"]) >= 32
    assert {name: environment(short_folder)[name] for name in made} == made
    assert dotenv.complete(environment(short_folder), file) == {}


def test_what_env_held_before_stays_and_what_is_set_is_not_made(short_folder: Path) -> None:
    file = short_folder / ".env"
    file.write_text("BOOTSTRAP_ADMIN_EMAIL=boss@hg.io\nRATE_LIMIT=5/s")
    made = dotenv.complete({"BOOTSTRAP_ADMIN_EMAIL": "boss@hg.io", "JWT_SECRET_FILE": "/some/file"}, file)
    assert list(made) == ["BOOTSTRAP_ADMIN_PASSWORD"]
    lines = file.read_text().splitlines()
    assert lines[:2] == ["BOOTSTRAP_ADMIN_EMAIL=boss@hg.io", "RATE_LIMIT=5/s"]
    assert len(lines) == 3
    with pytest.raises(SetupError, match="Reading"):
        dotenv.complete({}, short_folder)


def test_root_lends_the_database_one_capability_and_users_none(tmp_path: Path) -> None:
    assert (account() is None) == (os.geteuid() != 0)
    words = setpriv(Account(7, 8, "dac_read_search"), when_parent_dies="INT")
    assert {"--reuid=7", "--regid=8", "--bounding-set=-all,+dac_read_search", "--pdeathsig=INT"} <= set(words)
    assert setpriv() == []
    status = tmp_path / "status"
    for held, capability in (("0000000000000004", "dac_read_search"), ("00000000a80425fb", "dac_override")):
        status.write_text(f"Name:\tx\nCapEff:\t{held}\n")
        assert _capability(status) == capability
    status.write_text("CapEff:\t0000000000000000\n")
    with pytest.raises(SetupError, match="ordinary user"):
        _capability(status)


def test_without_setpriv_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="util-linux"):
        setpriv()


def test_waiting_ends(tmp_path: Path) -> None:
    with pytest.raises(TooSlow, match="It did not come within"):
        wait_until(lambda: False, "It did not come", 0.1)
    assert tail(tmp_path / "none") == "(no log)"
