"""Give transactions, and do after the commit what must not happen before it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from genonaut.core.events import Event

log = structlog.get_logger(__name__)

EventSink = Callable[[list[Event]], None]

_ACTIONS = "after_commit_actions"
_EVENTS = "events"
_READ_ONLY_TRANSACTION = "25006"


def on_commit(session: Session, action: Callable[[], None]) -> None:
    """Run ``action`` once this transaction is committed; never if it is rolled back."""
    session.info.setdefault(_ACTIONS, []).append(action)


def add_event(session: Session, change: Event) -> None:
    """Tell the process's sinks of ``change`` once this transaction is committed."""
    session.info.setdefault(_EVENTS, []).append(change)


@contextmanager
def savepoint(session: Session) -> Iterator[None]:
    """Undo the block alone when it raises, with what was to follow its commit."""
    waiting = {name: list(session.info.get(name, ())) for name in (_ACTIONS, _EVENTS)}
    try:
        with session.begin_nested():
            yield
    except BaseException:
        session.info.update(waiting)
        raise


def make_engine(url: str, *, pool_size: int = 5, connect_timeout_s: int = 5) -> Engine:
    """Connect to PostgreSQL with limits on every kind of waiting.

    A server that is stopped or cut off is noticed within ten seconds; a failover that leaves us
    on a read-only server empties the pool.
    """
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": connect_timeout_s,
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "application_name": "genonaut",
            "options": (
                "-c timezone=UTC -c statement_timeout=30000 -c lock_timeout=10000"
                " -c idle_in_transaction_session_timeout=30000"
            ),
        },
    )

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


class Database:
    """Own the engine of one process.

    ``sinks`` receive the events of each committed transaction; api, worker and beat add theirs.
    A sink that raises is logged and does not undo or hide the commit.
    """

    def __init__(self, engine: Engine, *, factory: sessionmaker[Session] | None = None) -> None:
        self.engine = engine
        self.sinks: list[EventSink] = []
        self._factory = factory or sessionmaker(engine, expire_on_commit=False, autoflush=False)

    @classmethod
    def connect(cls, url: str, *, pool_size: int = 5) -> "Database":
        """Make a database for ``url``; nothing is contacted yet."""
        return cls(make_engine(url, pool_size=pool_size))

    def after_fork(self) -> None:
        """Forget inherited connections without closing the parent's."""
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

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
