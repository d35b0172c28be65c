"""PostgreSQL: the engine with its limits, and the unit of work.

The server's own limits end a slow statement. A server that is stopped, or a machine that is cut
off, says nothing at all: so every wait has a limit on this side too, see :class:`Patient`, and
who waits for long looks whether the server still answers anybody, see :class:`Pulse`.
"""

import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Connection, Engine, TextClause, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from . import metrics
from .errors import Unavailable
from .roles import refuse_powerful

CONNECT_TIMEOUT = 3
POOL_TIMEOUT = 3
STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 3_000
PING_TIMEOUT = 1.5
"""Seconds for an answer outside a unit of work, above all to whether a pooled connection still works."""
ANSWER_TIMEOUT = 17.0
"""Seconds for an answer inside one: more than a statement may take, less than the gateway waits (20 s)."""
DOUBT_AFTER = 1.5
"""Seconds without an answer after which it is looked, again and again, whether the server answers anybody."""
PULSE_TIMEOUT = 2
"""Seconds in which it has to take a new connection; the least that libpq knows."""
RETRY_AFTER = 1.0
"""Seconds for which PostgreSQL is not asked again after it gave no answer in time."""
TRUSTED_FOR = 1.0
"""Seconds that a pooled connection needs no ping after an answer. On a busy one that is a round trip less."""


class NoAnswer(psycopg.OperationalError):
    """PostgreSQL takes what it is sent, and says nothing."""


class Pulse:
    """Whether PostgreSQL still takes new connections: that tells a slow statement from a server that hangs.

    Those who want to know at the same time share one look. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._beats = True

    def beats(self, look: Callable[[], psycopg.Connection[Any]]) -> bool:
        with self._lock:
            if time.monotonic() - self._looked_at > RETRY_AFTER:
                self._beats = self._answers(look)
                self._looked_at = time.monotonic()
            return self._beats

    def _answers(self, look: Callable[[], psycopg.Connection[Any]]) -> bool:
        try:
            look().close()
        except psycopg.errors.ConnectionTimeout:
            return False
        except psycopg.Error:
            pass  # a refusal is an answer, too
        return True


class Patient(psycopg.Connection[Any]):
    """A connection that waits :attr:`patience` seconds for an answer, then closes: its state is not known any more.

    No limit of TCP's or libpq's notices a server whose machine answers while its process does not.
    """

    patience = PING_TIMEOUT
    beats: Callable[[], bool] | None = None
    """Whether the server still answers anybody. Without it only :attr:`patience` counts."""
    _answered = 0.0

    def wait(self, gen: PQGen[Any], *args: Any, **options: Any) -> Any:
        return super().wait(self._limited(gen), *args, **options)

    def _limited(self, gen: PQGen[Any]) -> PQGen[Any]:
        """``gen``, given up when time is over. It is resumed every tenth of a second even if nothing came."""
        begun = time.monotonic()
        end, doubt = begun + self.patience, begun + DOUBT_AFTER
        try:
            awaited = next(gen)
            while True:
                came = yield awaited
                now = time.monotonic()
                if came:
                    self._answered = now
                elif now > end or (self.beats and now > doubt and not self.beats()):
                    self.close()
                    raise NoAnswer("PostgreSQL did not answer in time")
                elif now > doubt:
                    doubt = time.monotonic() + DOUBT_AFTER
                awaited = gen.send(came)
        except StopIteration as ended:
            return ended.value

    def seems_alive(self) -> bool:
        """Whether it answered just now and the server has said nothing since, such as that it closes."""
        came = select.poll()
        came.register(self.pgconn.socket, select.POLLIN)
        return time.monotonic() - self._answered < TRUSTED_FOR and not came.poll(0)

    @contextmanager
    def at_work(self, patience: float | None = None) -> Iterator[None]:
        """Wait longer, :data:`ANSWER_TIMEOUT` by default."""
        self.patience = ANSWER_TIMEOUT if patience is None else patience
        try:
            yield
        finally:
            self.patience = PING_TIMEOUT


class Silence:
    """Whether PostgreSQL has given no answer of late. Then one caller at a time finds out whether it does again.

    The others hear so at once, instead of waiting one after another until no thread is left for anything else.
    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lasts = False
        self._try_at = 0.0

    def enter(self) -> None:
        """Raises :class:`Unavailable` unless it is this caller's turn to ask."""
        if not self._lasts:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._try_at:
                raise Unavailable
            self._try_at = now + PING_TIMEOUT + CONNECT_TIMEOUT

    def heard(self) -> None:
        self._lasts = False

    def note(self, error: BaseException | None) -> None:
        """Begin where ``error`` is that there was no answer."""
        if isinstance(error, NoAnswer | psycopg.errors.ConnectionTimeout):
            with self._lock:
                self._lasts, self._try_at = True, time.monotonic() + RETRY_AFTER


class Database:
    """A pool of connections to ``heartguard_core``; every wait on it has a limit.

    A role that nothing holds back is refused: see :class:`heartguard.roles.PowerfulRole`.
    """

    def __init__(self, url: str, *, service: str, pool_size: int = 8) -> None:
        options = (
            f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC"
        )
        self._silence = Silence()
        self._pulse = Pulse()
        self._seconds = metrics.STORE.labels(service, "postgres")
        self.engine: Engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            hide_parameters=True,  # an error that is logged must not show e-mail addresses or hashes
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT,
                "application_name": f"heartguard-{service}",
                "options": options,
            },
        )
        event.listen(self.engine, "do_connect", self._connect)
        event.listen(self.engine, "checkout", self._prove)
        self._each = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshots = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def transaction(self, org_id: int | None = None, *, snapshot: bool = False) -> Iterator[Connection]:
        """One unit of work: committed at the end of the block, rolled back on any error.

        With ``org_id`` the rows of that organization are what row-level security lets through.
        With ``snapshot`` it only reads, and all its statements see the same state.
        PostgreSQL being away, restarting, locked for too long or without an answer is :class:`Unavailable`.
        """
        engine = self._snapshots if snapshot else self.engine
        with self._connection(engine) as connection, connection.begin():
            if org_id is not None:
                driver = patient(connection)
                with driver.pipeline():  # in one round trip with the transaction's beginning
                    _show(driver, org_id=org_id)
            yield connection

    def at_once(
        self, statement: TextClause, parameters: Mapping[str, Any], **shown: int | str
    ) -> list[tuple[Any, ...]]:
        """The rows of a statement that is a unit of work by itself, in one round trip. Fails as the other does.

        ``shown`` is what row-level security lets through: rows of the organization ``org_id``, the user ``email``.
        """
        compiled = statement.compile(dialect=self.engine.dialect)
        with self._connection(self._each) as connection:
            driver = patient(connection)
            with driver.pipeline():  # which makes one transaction of what is sent together
                _show(driver, **shown)
                cursor = driver.execute(str(compiled), compiled.construct_params(dict(parameters)))
            return cursor.fetchall()

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Every statement is a unit of work by itself, and one round trip instead of three. Fails as the other does."""
        with self._connection(self._each) as connection:
            yield connection

    @contextmanager
    def _connection(self, engine: Engine) -> Iterator[Connection]:
        self._silence.enter()
        try:
            with self._seconds.time(), engine.connect() as connection, patient(connection).at_work():
                self._silence.heard()
                yield connection
        except PoolTimeoutError as error:
            raise Unavailable from error
        except DBAPIError as error:
            self._silence.note(error.orig)
            if is_unavailable(error):
                raise Unavailable from error
            raise
        except psycopg.OperationalError as error:  # of the driver's connection itself
            self._silence.note(error)
            if _is_passing(error.sqlstate):
                raise Unavailable from error
            raise

    def _connect(self, _dialect: object, _record: object, words: tuple[Any, ...], options: dict[str, Any]) -> Patient:
        connection = Patient.connect(*words, **options, autocommit=True)
        try:
            refuse_powerful(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        look = partial(psycopg.connect, *words, **{**options, "connect_timeout": PULSE_TIMEOUT})
        connection.beats = partial(self._pulse.beats, look)
        return connection

    def _prove(self, driver: Patient, _record: object, _proxy: object) -> None:
        """Ping a connection that comes from the pool, unless there is little doubt. A dead one is replaced."""
        if not driver.seems_alive():
            try:
                self.engine.dialect.do_ping(driver)  # type: ignore[arg-type]
            except psycopg.Error as error:
                raise InvalidatePoolError from error

    def check(self) -> None:
        """Ask the database something; raises where it does not answer."""
        with self.transaction() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def _show(driver: Patient, **shown: int | str) -> None:
    """Let row-level security show that until the end of the transaction."""
    for name, value in shown.items():
        driver.execute("SELECT set_config('heartguard.' || %s, %s, true)", [name, str(value)])


def make_patient(engine: Engine) -> None:
    """Let an engine that is no service's have :class:`Patient` connections too."""
    event.listen(engine, "do_connect", lambda _dialect, _record, words, options: Patient.connect(*words, **options))


def patient(connection: Connection) -> Patient:
    """The driver's connection of an engine made patient."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, Patient)
    return driver


# SQLSTATE classes that mean "not now" rather than "wrong": connection, resources, operator, deadlock, lock, cancel.
_PASSING = ("08", "53", "57", "58", "40001", "40P01", "55P03")


def is_unavailable(error: DBAPIError) -> bool:
    """Whether the statement failed because the database cannot work at present."""
    return error.connection_invalidated or _is_passing(getattr(error.orig, "sqlstate", None))


def _is_passing(state: str | None) -> bool:
    return state is None or state.startswith(_PASSING)
