"""See how PostgreSQL would run what a block of code asks."""

from collections.abc import Callable

from sqlalchemy import event
from sqlalchemy.orm import Session


def explain(session: Session, act: Callable[[Session], object]) -> list[str]:
    """Run it, and give the plan of each statement that it sent."""
    seen = []
    connection = session.connection()

    def note(_, __, statement, parameters, *___):
        seen.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    try:
        act(session)
    finally:
        event.remove(connection, "before_cursor_execute", note)
    return [
        "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
        for statement, parameters in seen
    ]
