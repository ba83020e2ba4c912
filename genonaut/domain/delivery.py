"""Say which rows are due a broker message, and remember which were sent.

The same for every kind of work. A message is only a hint that a row is due: it may be lost,
doubled or late, and the claim decides (see ``domain/lifecycle.py``).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    String,
    bindparam,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from genonaut.db.models import Base
from genonaut.domain.lifecycle import Status
from genonaut.domain.repairs import MESSAGE_LOST, UNPUBLISHED, Stale


@dataclass(frozen=True, slots=True)
class Message:
    """A row to publish.

    ``task`` is the name of what is to be done with it, ``task_id`` the Celery task id chosen when
    the row was made, ``version`` that of the row the message speaks of. ``waits_s`` is for how long
    the row has been due, seconds, and ``was_sent`` whether the broker took a message for it before.
    """

    kind: str
    row_id: int
    task: str
    queue: str
    task_id: str
    version: int
    waits_s: float = field(default=0.0, compare=False)
    was_sent: bool = False

    def stale(self, *, why: str) -> Stale:
        """Say that the row waits for a message, and that one will be published."""
        return Stale(
            rule=MESSAGE_LOST if self.was_sent else UNPUBLISHED,
            kind=self.kind,
            id=self.row_id,
            what=self.task,
            stale_s=self.waits_s,
            why=why,
            becomes="published",
        )


@dataclass(frozen=True, slots=True)
class Outbox:
    """The rows of one table that are sent to workers.

    Args:
        kind: as in the events of these rows.
        task: name of the task, or the column that holds it.
        queue: name of the queue, or the column that holds it.
        when: what must hold for a pending row to be sent at all.
    """

    kind: str
    model: type[Base]
    task: ColumnElement[str]
    queue: ColumnElement[str]
    when: tuple[ColumnElement[bool], ...] = ()

    def unpublished(
        self, session: Session, epoch: str | None, *, settle_s: float, limit: int
    ) -> list[Message]:
        """List due rows that no broker message stands for, oldest first.

        Those never published (unless they became due within ``settle_s`` seconds: whoever made
        them is about to publish them) and those published under another epoch: Redis has lost its
        memory since. Without an ``epoch``, only the former.
        """
        return self._messages(session, self._unpublished(epoch, settle_s).limit(limit))

    def count_unpublished(
        self, session: Session, epoch: str | None, *, settle_s: float
    ) -> dict[str, int]:
        """Count what :meth:`unpublished` lists, by the name of the rule it goes by."""
        rows = self._unpublished(epoch, settle_s).order_by(None).subquery()
        again = func.count().filter(rows.c.was_sent)
        number = session.execute(
            select(again.label("again"), func.count().label("all")).select_from(rows)
        ).one()
        counts = {MESSAGE_LOST: number.again, UNPUBLISHED: number.all - number.again}
        return {f"{self.kind}.{rule}": count for rule, count in counts.items()}

    def any_unpublished(self, *, settle_s: float) -> ColumnElement[bool]:
        """Say whether there is anything that :meth:`unpublished` lists, for a given ``:epoch``."""
        return self._unpublished(bindparam("epoch", type_=String), settle_s).exists()

    def any_overdue(self, *, after_s: float) -> ColumnElement[bool]:
        """Say whether there is anything that :meth:`overdue` lists."""
        return self._overdue(after_s).exists()

    def _unpublished(self, epoch: Any, settle_s: float) -> Select[Any]:
        model: Any = self.model
        never = model.dispatched_at.is_(None) & (
            model.available_at <= func.now() - timedelta(seconds=settle_s)
        )
        forgotten = model.dispatch_epoch != epoch if epoch is not None else false()
        return self._due().where(or_(never, forgotten))

    def _overdue(self, after_s: float) -> Select[Any]:
        model: Any = self.model
        return self._due().where(model.dispatched_at < func.now() - timedelta(seconds=after_s))

    def overdue(self, session: Session, epoch: str, *, after_s: float, limit: int) -> list[Message]:
        """List due rows published over ``after_s`` seconds ago that nobody claimed, oldest first.

        A backlog looks like this too, so each is looked for in the broker before it is sent again.
        Those published under another epoch are left to :meth:`unpublished`.
        """
        model: Any = self.model
        ours = self._overdue(after_s).where(model.dispatch_epoch == epoch)
        return self._messages(session, ours.limit(limit))

    def mark_published(self, session: Session, messages: Collection[Message], epoch: str) -> None:
        """Record that these messages were accepted by the broker under ``epoch``.

        A row that has been claimed and given back since is due a message of its own: it is left
        out.
        """
        model: Any = self.model
        numbers = ARRAY(BigInteger)
        unnested = func.unnest(
            cast([message.row_id for message in messages], numbers),
            cast([message.version for message in messages], numbers),
        ).table_valued("id", "version")
        sent = unnested.render_derived(name="sent")
        session.execute(
            update(model)
            .where(
                model.id == sent.c.id,
                model.version == sent.c.version,
                model.status == Status.PENDING,
            )
            .values(dispatched_at=func.now(), dispatch_epoch=epoch)
            .execution_options(synchronize_session=False)
        )

    def _due(self) -> Select[Any]:
        model: Any = self.model
        return (
            select(
                model.id,
                model.version,
                model.celery_task_id,
                model.dispatched_at.is_not(None).label("was_sent"),
                func.extract("epoch", func.now() - model.available_at).label("waits_s"),
                self.task.label("task"),
                self.queue.label("queue"),
            )
            .where(
                model.status == Status.PENDING,
                model.cancel_requested_at.is_(None),
                model.available_at <= func.now(),
                *self.when,
            )
            .order_by(model.id)
        )

    def _messages(self, session: Session, query: Select[Any]) -> list[Message]:
        return [
            Message(
                self.kind,
                row.id,
                row.task,
                row.queue,
                row.celery_task_id or f"{self.kind}-{row.id}",
                row.version,
                float(row.waits_s),
                row.was_sent,
            )
            for row in session.execute(query)
        ]


def missing(waiting: Iterable[Message], held_by_broker: Collection[str]) -> list[Message]:
    """Give the rows whose message the broker does not hold any more."""
    return [message for message in waiting if message.task_id not in held_by_broker]


def fixed(text: str) -> ColumnElement[str]:
    """Give a task or queue that is the same for every row."""
    return literal(text)
