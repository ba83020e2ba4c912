"""Move jobs and runs from state to state: the only module that assigns a status.

One vocabulary serves every kind of work::

    pending -> running -> completed | failed | cancelled
    pending -> cancelled | skipped | failed
    running -> pending                (given back: lost, released, or to be tried again)

A move is one UPDATE that names the states it may start from and, once a row is claimed, the lease
token of its holder. Whoever does not hold the token any more hits no row and writes nothing.
Times come from the database clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Generic, NoReturn, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Integer, Select, cast, false, func, select, text, update
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, LeaseLostError, NotFoundError
from genonaut.core.events import Event
from genonaut.db.models import Base
from genonaut.db.session import add_event


class Status(StrEnum):
    """Where a job or run stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.SKIPPED})
UNFINISHED = frozenset({Status.PENDING, Status.RUNNING})

MAY_BECOME: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.CANCELLED, Status.SKIPPED, Status.FAILED}),
    Status.RUNNING: frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.PENDING}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.SKIPPED: frozenset(),
}
"""Allowed moves; final states have none."""

_COMPLETE = """
SET LOCAL synchronous_commit = off;
UPDATE {table} SET
    status = 'completed', completed_at = clock_timestamp(), updated_at = now(),
    version = version + 1, error_code = NULL, error_message = NULL,
    lease_token = NULL, lease_expires_at = NULL
WHERE id = :id AND lease_token = :token AND status = 'running'
"""  # one round trip, and half the price of a move
_NO_LEASE: dict[str, Any] = {"lease_token": None, "lease_expires_at": None}

Row = TypeVar("Row", bound=Base)


@dataclass(frozen=True, slots=True)
class Machine(Generic[Row]):
    """Bind the moves to a table and to the way its changes are told.

    Args:
        model: the table.
        describe: tells of a changed row.
        claimable: what must hold for a due pending row to be claimed.
        uncounted: which claims do not count as attempts.
    """

    model: type[Row]
    describe: Callable[[Row], Event]
    claimable: tuple[ColumnElement[bool], ...] = ()
    uncounted: ColumnElement[bool] = field(default_factory=false)

    def _change(
        self,
        session: Session,
        row_id: int,
        conditions: Sequence[ColumnElement[bool]],
        values: dict[str, Any],
    ) -> Row | None:
        model: Any = self.model
        rows = self._change_all(session, (model.id == row_id, *conditions), values)
        return rows[0] if rows else None

    def _change_all(
        self, session: Session, conditions: Sequence[ColumnElement[bool]], values: dict[str, Any]
    ) -> list[Row]:
        model: Any = self.model
        statement = (
            update(model)
            .where(*conditions)
            .values(version=model.version + 1, updated_at=func.now(), **values)
            .returning(model)
            .execution_options(populate_existing=True, synchronize_session=False)
        )
        rows: list[Row] = list(session.scalars(statement))
        for row in rows:
            add_event(session, self.describe(row))
        return rows

    def move(
        self,
        session: Session,
        row_id: int,
        to: Status,
        *,
        token: UUID | None = None,
        when: Sequence[ColumnElement[bool]] = (),
        **values: Any,
    ) -> Row:
        """Change the status of one row, together with ``values``.

        A move out of ``running`` names the holder's ``token``, or says in ``when`` why it may do
        without (an expired lease, for the reaper).

        Raises:
            LeaseLostError: the row is not held under ``token`` any more; nothing was written.
            ConflictError: the row's state forbids it; nothing was written.
            NotFoundError: there is no such row.
        """
        model: Any = self.model
        sources = [source for source, targets in MAY_BECOME.items() if to in targets]
        if token is None and not when:
            sources = [source for source in sources if source is not Status.RUNNING]
        conditions = [model.status.in_(sources), *when]
        if token is not None:
            conditions.append(model.lease_token == token)
        if to is not Status.RUNNING:
            values = {**_NO_LEASE, **values}
        if to in FINAL:
            values.setdefault("completed_at", func.now())
        row = self._change(session, row_id, conditions, {"status": to, **values})
        if row is None:
            self._refuse(session, row_id, to, token)
        return row

    def give_back_all(
        self,
        session: Session,
        row_ids: Sequence[int],
        *,
        when: Sequence[ColumnElement[bool]],
        **values: Any,
    ) -> list[Row]:
        """Set running rows ``pending``, those of them for which ``when`` still holds; give these.

        One statement for all, so ``values`` that differ by row are expressions.
        """
        model: Any = self.model
        conditions = (model.id.in_(row_ids), model.status == Status.RUNNING, *when)
        return self._change_all(
            session, conditions, {"status": Status.PENDING, **_NO_LEASE, **values}
        )

    def claim(
        self, session: Session, row_id: int, *, worker: str, lease_s: float, **values: Any
    ) -> Row | None:
        """Take a due pending row for ``worker``; None when it is not there to be taken.

        ``values`` are written together with the claim.

        Counts the attempt, unless ``uncounted`` says otherwise. A row whose cancel was requested is
        never claimed.
        """
        model: Any = self.model
        return self._change(
            session,
            row_id,
            (
                model.status == Status.PENDING,
                model.available_at <= func.now(),
                model.cancel_requested_at.is_(None),
                *self.claimable,
            ),
            {
                "status": Status.RUNNING,
                "lease_token": uuid4(),
                "lease_expires_at": func.now() + timedelta(seconds=lease_s),
                "worker": worker,
                "attempt": model.attempt + cast(~self.uncounted, Integer),
                "started_at": func.coalesce(model.started_at, func.now()),
                **values,
            },
        )

    def complete(self, session: Session, row_id: int, *, token: UUID) -> None:
        """End a held row as completed, its last error forgotten, and tell nobody.

        For rows that end by the thousand while nobody watches. PostgreSQL need not have it on disk
        at once: should its machine crash within the second, the row is ended a second time.

        Raises:
            LeaseLostError: the row is not held under ``token`` any more; nothing was written.
            NotFoundError: there is no such row.
        """
        ended: Any = session.execute(
            text(_COMPLETE.format(table=self.model.__tablename__)), {"id": row_id, "token": token}
        )
        if not ended.rowcount:
            self._refuse(session, row_id, Status.COMPLETED, token)

    def claim_many(
        self, session: Session, due: Select[Any], *, worker: str, lease_s: float
    ) -> tuple[UUID, list[int]] | None:
        """Take the pending rows whose ids ``due`` locks, under one lease; None if there are none.

        Each attempt counts. Nothing is told of it: what is done with each row is.
        """
        model: Any = self.model
        token = uuid4()
        ids = due.cte("due")  # looked at once: a subquery may be run again, and lock others
        taken = session.scalars(
            update(model)
            .where(
                model.id.in_(select(ids.c.id)),
                model.status == Status.PENDING,
                model.cancel_requested_at.is_(None),
                *self.claimable,
            )
            .values(
                {
                    "status": Status.RUNNING,
                    "version": model.version + 1,
                    "updated_at": func.now(),
                    "lease_token": token,
                    "lease_expires_at": func.now() + timedelta(seconds=lease_s),
                    "worker": worker,
                    "attempt": model.attempt + cast(~self.uncounted, Integer),
                    "started_at": func.coalesce(model.started_at, func.now()),
                }
            )
            .returning(model.id)
            .execution_options(synchronize_session=False)
        ).all()
        return (token, list(taken)) if taken else None

    def renew(self, session: Session, row_id: int, *, token: UUID, lease_s: float) -> None:
        """Extend a lease; no version, no event, no index is touched.

        Raises: LeaseLostError: the row is not held under ``token`` any more.
        """
        model: Any = self.model
        renewed = session.execute(
            update(model)
            .where(model.id == row_id, model.lease_token == token)
            .values(lease_expires_at=func.now() + timedelta(seconds=lease_s))
            .execution_options(synchronize_session=False)
            .returning(model.id)
        )
        if renewed.first() is None:
            raise LeaseLostError(f"the lease on {row_id} is lost")

    def write(self, session: Session, row_id: int, *, token: UUID, **values: Any) -> Row:
        """Write ``values`` (never a status) as the holder of the lease.

        Raises: LeaseLostError: the row is not held under ``token`` any more; nothing was written.
        """
        model: Any = self.model
        row = self._change(session, row_id, (model.lease_token == token,), values)
        if row is None:
            raise LeaseLostError(f"the lease on {row_id} is lost")
        return row

    def note(
        self, session: Session, row_id: int, when: Sequence[ColumnElement[bool]], **values: Any
    ) -> Row | None:
        """Write ``values`` (never a status) where ``when`` holds; None where it does not."""
        return self._change(session, row_id, when, values)

    def _refuse(self, session: Session, row_id: int, to: Status, token: UUID | None) -> NoReturn:
        model: Any = self.model
        found = session.execute(
            select(model.status, model.lease_token).where(model.id == row_id)
        ).one_or_none()
        if found is None:
            raise NotFoundError(f"there is no {row_id}")
        if token is not None and found.lease_token != token:
            raise LeaseLostError(f"the lease on {row_id} is lost; it is {found.status} now")
        raise ConflictError(f"{row_id} is {found.status} and cannot become {to}")
