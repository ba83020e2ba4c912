"""Wait for PostgreSQL's answers in Python, so that waiting has an end and can be interrupted.

The driver alone waits in C: a server that is frozen, but whose machine still acknowledges packets,
would hold a thread without end, and no signal handler would run meanwhile.
"""

import select
import time

import psycopg2
from psycopg2 import extensions

_EVENTS = {
    extensions.POLL_READ: select.POLLIN,
    extensions.POLL_WRITE: select.POLLOUT,
}


class LimitedConnection(extensions.connection):
    """Wait for each answer ``answer_timeout_s`` at most."""

    answer_timeout_s: float


def limited(answer_timeout_s: float) -> type[LimitedConnection]:
    """Make a connection factory; from now on this process waits in Python."""
    extensions.set_wait_callback(_wait)
    return type("Connection", (LimitedConnection,), {"answer_timeout_s": answer_timeout_s})


def _wait(connection: extensions.connection) -> None:
    """Wait until the server has answered or the connection stands.

    Whatever is raised here, also by a signal handler, makes the driver close the connection: one
    with half an answer in it is never used again. Closing it here would wait for a lock that our
    caller holds.

    Raises: OperationalError: the time is up. What has arrived by then is taken.
    """
    limit_s = _limit_s(connection)
    deadline = None if limit_s is None else time.monotonic() + limit_s
    while (state := connection.poll()) != extensions.POLL_OK:
        # The socket changes while a connection is made: the next address is tried.
        poller = select.poll()
        poller.register(connection.fileno(), _EVENTS[state])
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poller.poll(left_ms):
            raise psycopg2.OperationalError("the database does not answer")


def _limit_s(connection: extensions.connection) -> float | None:
    if connection.status == extensions.STATUS_SETUP:
        # The driver heeds this only where it waits itself. Each host has that long.
        parts = extensions.parse_dsn(connection.dsn)
        hosts = str(parts.get("host", "")).count(",") + 1
        return float(parts.get("connect_timeout", 0)) * hosts or None
    return connection.answer_timeout_s if isinstance(connection, LimitedConnection) else None
