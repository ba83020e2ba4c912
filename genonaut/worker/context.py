"""Say what a task has to work with; ``worker/run.py`` gives it."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from genonaut.api.config import Settings
from genonaut.clients.storage import Storage
from genonaut.domain.run_attempts import Failure
from genonaut.worker.rendering import Renderer

if TYPE_CHECKING:
    from genonaut.worker.task import TaskDefinition, TaskParams

State = TypeVar("State", bound=BaseModel)


class TaskLog(Protocol):
    """Write lines that go to the worker's log and to the run's own tail."""

    def debug(self, event: str, **values: Any) -> None:
        """Tell a detail."""
        ...

    def info(self, event: str, **values: Any) -> None:
        """Tell what happened."""
        ...

    def warning(self, event: str, **values: Any) -> None:
        """Tell what is not as it should be."""
        ...

    def error(self, event: str, **values: Any) -> None:
        """Tell what failed."""
        ...


class TaskContext(Protocol):
    """What a task has to work with.

    A run that was cancelled, or whose worker is stopping, is ended inside :meth:`progress`; one
    that lost its lease also where it writes. Let what they raise pass.
    """

    @property
    def run_id(self) -> int:
        """The run's id."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        ...

    @property
    def dry_run(self) -> bool:
        """Whether to say what would be done, and do nothing."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        ...

    @property
    def storage(self) -> Storage:
        """Where files are kept."""
        ...

    @property
    def renderer(self) -> Renderer:
        """What decodes pictures, whatever they are."""
        ...

    @property
    def log(self) -> TaskLog:
        """The log; its last 200 lines are shown with the run."""
        ...

    def transaction(self) -> AbstractContextManager[Session]:
        """Begin a transaction; it is committed when the block ends. Keep it short."""
        ...

    def progress(self, done: int, total: int | None = None, message: str | None = None) -> None:
        """Show how far the run is, and end it here if it must end. Call it every few seconds."""
        ...

    def checkpoint(self, session: Session, state: BaseModel) -> None:
        """Keep where the run is, in the transaction that did the work up to there."""
        ...

    def resume(self, model: type[State]) -> State | None:
        """Give the last checkpoint; None for a run that begins, or if it no longer fits."""
        ...

    def fail_item(self, session: Session, ref: str, error: str) -> None:
        """Record an item that could not be done; the run goes on."""
        ...

    def fail_items(self, session: Session, failures: list[Failure]) -> None:
        """Record items that could not be done; the run goes on."""
        ...

    def start(
        self,
        session: Session,
        other: "TaskDefinition[Any, Any]",
        params: "TaskParams | None" = None,
    ) -> int:
        """Start another task as this run's child, when the transaction is committed; give its id.

        If a run that stands for it is unfinished already, its id is given.
        """
        ...

    def start_again(self, session: Session, other: "TaskDefinition[Any, Any]", run_id: int) -> int:
        """Repeat an ended run of ``other`` as this run's child, from its checkpoint.

        Raises: ConflictError: it has not failed, nor was it cancelled.
        """
        ...

    def take_failures(self, session: Session, run_ids: Collection[int]) -> None:
        """List what other runs could not do as this run's own failed items."""
        ...

    def pause(self, reason: str, *, for_s: float) -> NoReturn:
        """End this attempt here, uncounted; the run goes on from its checkpoint later.

        Its slot is free meanwhile. With ``for_s=0`` it queues again behind whatever waits.
        """
        ...

    def await_children(self) -> NoReturn:
        """End this attempt here, uncounted; the run goes on when what it started has ended.

        It holds no slot meanwhile, so one slot is enough for both. Look at them with
        ``domain/run_families.py``.
        """
        ...
