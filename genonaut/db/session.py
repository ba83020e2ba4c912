"""Give transactions, and do after the commit what must not happen before it."""

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from genonaut.core.events import Event
from genonaut.db import waiting

log = structlog.get_logger(__name__)

EventSink = Callable[[list[Event]], None]

_ACTIONS = "after_commit_actions"
_EVENTS = "events"
_READ_ONLY_TRANSACTION = "25006"
_USED_AT = "used_at"
_TRUSTED_S = 1.0


def on_commit(session: Session, action: Callable[[], None]) -> None:
    """Run ``action`` once this transaction is committed; never if it is rolled back."""
    session.info.setdefault(_ACTIONS, []).append(action)


def add_event(session: Session, change: Event) -> None:
    """Tell the process's sinks of ``change`` once this transaction is committed."""
    session.info.setdefault(_EVENTS, []).append(change)


@contextmanager
def savepoint(session: Session) -> Iterator[None]:
    """Undo the block alone when it raises, with what was to follow its commit."""
    before = {name: list(session.info.get(name, ())) for name in (_ACTIONS, _EVENTS)}
    try:
        with session.begin_nested():
            yield
    except BaseException:
        session.info.update(before)
        raise


def make_engine(
    url: str,
    *,
    pool_size: int = 5,
    connect_timeout_s: int = 5,
    answer_timeout_s: float | None = None,
    autocommit: bool = False,
) -> Engine:
    """Connect to PostgreSQL with limits on its waiting, and on ours.

    The server ends a statement after 30 s, or a second before ``answer_timeout_s``. A machine that
    is cut off is noticed within ten seconds. A server that is frozen while its machine answers is
    given up after ``answer_timeout_s``; None waits, for migrations, which may take long. A failover
    that leaves us on a read-only server empties the pool. A pooled connection that was used a
    moment ago, and on which the server has not hung up since, is not asked whether it still lives:
    the question costs as much as a statement.
    """
    statement_s = 30.0 if answer_timeout_s is None else max(0.1, min(30, answer_timeout_s - 1))
    limited = (
        {}
        if answer_timeout_s is None
        else {"connection_factory": waiting.limited(answer_timeout_s)}
    )
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        pool_recycle=1800,
        isolation_level="AUTOCOMMIT" if autocommit else None,
        connect_args={
            "connect_timeout": connect_timeout_s,
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "application_name": "genonaut",
            "options": (
                f"-c timezone=UTC -c statement_timeout={int(statement_s * 1000)}"
                f" -c lock_timeout={int(min(10, statement_s) * 1000)}"
                " -c idle_in_transaction_session_timeout=30000"
            ),
            **limited,
        },
    )

    @event.listens_for(engine, "connect")
    @event.listens_for(engine, "checkin")
    def _note_use(_: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_USED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ask_after_a_pause(
        connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection
    ) -> None:
        trusted = time.monotonic() - record.info[_USED_AT] < _TRUSTED_S
        if trusted and not _has_unread(connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # the pool connects anew and tries again

    @event.listens_for(engine, "handle_error")
    def _forget_what_was_closed(context: ExceptionContext) -> None:
        # A signal handler that raised while we waited: the driver has closed the connection.
        connection = context.connection
        if connection is not None and not connection.closed and not connection.invalidated:
            driver: Any = connection.connection.dbapi_connection
            context.is_disconnect = context.is_disconnect or bool(driver.closed)

    @event.listens_for(engine, "handle_error", retval=True)
    def _leave_a_read_only_server(context: ExceptionContext) -> OperationalError | None:
        cause = context.original_exception
        if getattr(cause, "pgcode", None) != _READ_ONLY_TRANSACTION:
            return None
        context.is_disconnect = True
        # The driver calls it an internal error; to us it is a database that is away for now.
        return OperationalError(
            context.statement, context.parameters, cause, connection_invalidated=True
        )

    return engine


def _sessions(engine: Engine) -> sessionmaker[Session]:
    return sessionmaker(engine, expire_on_commit=False, autoflush=False)


def _has_unread(connection: Any) -> bool:
    """Whether the server has said something unasked: a connection that it cut says so."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Database:
    """Own the engine of one process.

    ``sinks`` receive the events of each committed transaction; api, worker and beat add theirs.
    A sink that raises is logged and does not undo or hide the commit. ``locking`` is for locks that
    are held while something else is done, however long that takes: work has connections of its own.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        looking: Engine | None = None,
        locking: Engine | None = None,
        factory: sessionmaker[Session] | None = None,
    ) -> None:
        self.engine = engine
        self.locking = locking or engine
        self.sinks: list[EventSink] = []
        self._engines = [engine, *(other for other in (looking, locking) if other)]
        self._factory = factory or _sessions(engine)
        self._lookers = _sessions(looking) if looking else self._factory

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        pool_size: int = 5,
        connect_timeout_s: int = 5,
        answer_timeout_s: float = 35,
    ) -> "Database":
        """Make a database for ``url``; nothing is contacted yet."""

        def made(*, autocommit: bool = False) -> Engine:
            return make_engine(
                url,
                pool_size=pool_size,
                connect_timeout_s=connect_timeout_s,
                answer_timeout_s=answer_timeout_s,
                autocommit=autocommit,
            )

        # A pool of its own: turning a connection to autocommit and back costs as much as a look.
        return cls(made(), looking=made(autocommit=True), locking=made())

    def after_fork(self) -> None:
        """Forget inherited connections without closing the parent's."""
        for engine in self._engines:
            engine.dispose(close=False)

    def close(self) -> None:
        """Close every pooled connection."""
        for engine in self._engines:
            engine.dispose()

    @contextmanager
    def looking(self) -> Iterator[Session]:
        """Give a session whose every statement stands alone: nothing to begin or to commit.

        For a look that takes one statement; what must be seen or written together is a
        :meth:`transaction`.
        """
        with self._lookers() as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Commit when the block ends, roll back when it raises, then act on what was committed."""
        with self._factory() as session:
            try:
                yield session
                session.commit()
            except BaseException:
                session.rollback()
                raise
            actions: list[Callable[[], None]] = session.info.pop(_ACTIONS, [])
            events: list[Event] = session.info.pop(_EVENTS, [])
        if events:
            for sink in self.sinks:
                _run(sink, events)
        for action in actions:
            _run(action)


def _run(call: Callable[..., None], *args: Any) -> None:
    # The commit has happened: whatever follows may fail, the reconciler repairs it, but the
    # caller must see the success that is in the database.
    try:
        call(*args)
    except Exception:
        log.exception("after_commit_failed")
