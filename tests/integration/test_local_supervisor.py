"""The supervisor: what it is told, and that it keeps things running."""

import os
import signal
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest

from heartguard.local.errors import SetupError
from heartguard.local.layout import Layout
from heartguard.local.server import wait_until
from heartguard.local.supervisor import Program, Supervisor, configuration
from heartguard.local.unprivileged import setpriv


@pytest.fixture
def layout(short_folder: Path) -> Layout:
    found = Layout(short_folder)
    found.prepare()
    return found


@pytest.fixture
def sleeper(layout: Layout) -> Program:
    command = [*setpriv(when_parent_dies="TERM"), "sleep", "600"]
    return Program("sleeper", "services", command, layout.root)


@pytest.fixture
def supervisor(layout: Layout, sleeper: Program) -> Iterator[Supervisor]:
    found = Supervisor(layout)
    found.launch([sleeper], dict(os.environ))
    yield found
    found.shut_down()


def test_the_configuration_names_programs_in_their_groups(layout: Layout, tmp_path: Path) -> None:
    stores = Program("postgres", "stores", ["/a b/postgres", "-c", "100%"], tmp_path, signal.SIGINT)
    text = configuration(layout, [stores, Program("auth", "services", ["auth"], tmp_path)])
    parsed = RawConfigParser()
    parsed.read_string(text)
    assert parsed["program:postgres"]["command"] == "'/a b/postgres' -c 100%%"
    assert parsed["program:postgres"]["stopsignal"] == "INT"
    assert parsed["group:stores"]["programs"] == "postgres"
    assert int(parsed["group:stores"]["priority"]) < int(parsed["group:services"]["priority"])
    with pytest.raises(SetupError, match="cannot run"):
        configuration(layout, [Program("auth", "services", ["a;b"], tmp_path)])


def pid_of(supervisor: Supervisor) -> int:
    state = supervisor.states()["sleeper"]
    return state.pid if state.running else 0


def test_what_is_killed_comes_back(supervisor: Supervisor, sleeper: Program) -> None:
    assert not supervisor.states()["sleeper"].running
    supervisor.start(sleeper)
    supervisor.start(sleeper)
    wait_until(lambda: pid_of(supervisor) != 0, "The program did not run", 10)
    first = pid_of(supervisor)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: pid_of(supervisor) not in {0, first}, "The program did not come back", 10)


def test_nothing_outlives_it(layout: Layout, supervisor: Supervisor, sleeper: Program) -> None:
    supervisor.start(sleeper)
    wait_until(lambda: pid_of(supervisor) != 0, "The program did not run", 10)
    child = pid_of(supervisor)
    os.kill(int((layout.root / "supervisord.pid").read_text()), signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{child}/cmdline").exists(), "The program lives on", 10)
    assert supervisor.states() == {}
    assert not supervisor.answers()


def test_it_knows_what_it_was_launched_for(supervisor: Supervisor, sleeper: Program) -> None:
    assert supervisor.was_launched_for([sleeper])
    assert not supervisor.was_launched_for([])


def test_a_program_it_does_not_know_is_an_error(supervisor: Supervisor, layout: Layout) -> None:
    with pytest.raises(SetupError, match="BAD_NAME"):
        supervisor.start(Program("other", "services", ["true"], layout.root))


def test_a_supervisor_that_does_not_start_says_why(layout: Layout) -> None:
    with pytest.raises(SetupError, match="did not start"):
        Supervisor(layout).launch([Program("bad", "services", ["true"], Path("%(no)s"))], dict(os.environ))
