"""Work on one claim of a run: give the task its context, and write down how it ended.

The row decides everything, as for a job (``worker/generation.py``): whether the claim still
holds, whether a cancel was requested, where an earlier attempt stopped.
"""

import json
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, NoReturn, TypeVar

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.api.config import Settings
from genonaut.clients.storage import Storage
from genonaut.core.errors import ConflictError, GenonautError, LeaseLostError, RetryableError
from genonaut.domain import run_attempts, run_families, runs
from genonaut.domain.run_attempts import Failure, RunClaim
from genonaut.domain.runs import Trigger
from genonaut.worker import drain
from genonaut.worker.held import DATABASE_AWAY, HeldRow, claim_patiently
from genonaut.worker.lease import LeaseKeeper
from genonaut.worker.rendering import Renderer
from genonaut.worker.run_log import RunLog
from genonaut.worker.services import Services
from genonaut.worker.task import TaskDefinition, TaskParams

log = structlog.get_logger(__name__)

ROW_EVERY_S = 0.5
SUM_EVERY_S = 2.0
MAX_RESULT_BYTES = 256 * 1024

State = TypeVar("State", bound=BaseModel)


class StopRun(BaseException):
    """End this attempt here.

    No ``Exception``: a task that catches every error of an item must not catch this.
    """


class CancelRun(StopRun):
    """Somebody wants the run ended."""


class ReleaseRun(StopRun):
    """The worker is stopping; the run goes back."""


class PauseRun(StopRun):
    """The task wants to go on later."""

    def __init__(self, reason: str, for_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.for_s = for_s


class AwaitChildren(StopRun):
    """The task wants to go on when what it started has ended."""


class InvalidResultError(GenonautError):
    """The task gave something else than its result."""

    code = "invalid_result"


def run(
    services: Services, definition: TaskDefinition[Any, Any], run_id: int, *, worker: str
) -> bool:
    """Claim a run and bring it as far as it goes; whether there was something to claim."""
    settings = services.settings

    def claim(session: Session) -> RunClaim | None:
        return run_attempts.claim(session, run_id, worker=worker, lease_s=settings.lease_s)

    held = claim_patiently(services.database, run_id, claim)
    if held is None:
        log.info("not_claimed", run_id=run_id)
        return False

    def renew(session: Session) -> None:
        run_attempts.renew(session, held, lease_s=settings.lease_s)

    log.info("claimed", run_id=run_id, task=definition.name, attempt=held.run.attempt)
    with LeaseKeeper(services.database, run_id, renew, every_s=settings.lease_renew_s) as lease:
        _Attempt(services, definition, held, lease).run()
    return True


class RunContext:
    """What the task works with; see :class:`genonaut.worker.task.TaskContext`."""

    def __init__(
        self,
        services: Services,
        held: RunClaim,
        *,
        check: Callable[[], None],
    ) -> None:
        self._services = services
        self._held = held
        self._row = HeldRow(services.database, held)
        self._check = check
        self._log = RunLog(log.bind(run_id=held.run.id, task=held.run.task), held.run.log_tail)
        self._written_at = self._summed_at = 0.0
        self._shown: dict[str, Any] = {**held.run.progress, "phase": "running"}
        self._shown.pop("reason", None)

    @property
    def run_id(self) -> int:
        """The run's id."""
        return self._held.run.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._held.run.attempt

    @property
    def dry_run(self) -> bool:
        """Whether to say what would be done, and do nothing."""
        return self._held.run.dry_run

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self._services.settings

    @property
    def storage(self) -> Storage:
        """Where files are kept."""
        return self._services.storage

    @property
    def renderer(self) -> Renderer:
        """What decodes pictures, whatever they are."""
        return self._services.renderer

    @property
    def log(self) -> RunLog:
        """The log; its last lines are shown with the run."""
        return self._log

    def transaction(self) -> AbstractContextManager[Session]:
        """Begin a transaction; it is committed when the block ends."""
        return self._services.database.transaction()

    def progress(self, done: int, total: int | None = None, message: str | None = None) -> None:
        """Show how far the run is, at most twice a second, and end it here if it must end.

        What is shown never goes back and never passes the end, also when an earlier attempt had
        come further or the work grows meanwhile.
        """
        self._check()
        self._shown = _advanced(self._shown, done, total, message)
        if time.monotonic() - self._written_at >= ROW_EVERY_S:
            self.show()

    def show(self) -> None:
        """Write what is to be shown now; a cancel requested meanwhile ends the run here."""
        self._written_at = time.monotonic()
        cancelled = False

        def write(session: Session, held: RunClaim) -> None:
            nonlocal cancelled
            row = run_attempts.report(session, held, **self.columns())
            cancelled = row.cancel_requested_at is not None
            if row.parent_id is not None and self._written_at - self._summed_at >= SUM_EVERY_S:
                self._summed_at = self._written_at
                run_families.show_sum(session, row.parent_id)

        self._row.tell(write)
        if cancelled:
            raise CancelRun

    def columns(self) -> dict[str, Any]:
        """Give what the row shows of the work: its progress, and the log if it has grown."""
        tail = self._log.news()
        return {"progress": self._shown, **({} if tail is None else {"log_tail": tail})}

    def checkpoint(self, session: Session, state: BaseModel) -> None:
        """Keep where the run is, in the transaction that did the work up to there."""
        run_attempts.checkpoint(session, self._held, state.model_dump(mode="json"))

    def resume(self, model: type[State]) -> State | None:
        """Give the last checkpoint; None for a run that begins, or if it no longer fits."""
        kept = self._held.run.checkpoint
        if kept is None:
            return None
        try:
            return model.model_validate(kept)
        except ValidationError as error:
            self._log.warning("checkpoint_unusable", reason=str(error)[:300])
            return None

    def fail_item(self, session: Session, ref: str, error: str) -> None:
        """Record an item that could not be done; the run goes on."""
        self.fail_items(session, [Failure(ref, error)])

    def fail_items(self, session: Session, failures: list[Failure]) -> None:
        """Record items that could not be done; the run goes on."""
        run_attempts.fail_items(session, self._held, failures)

    def start(
        self, session: Session, other: TaskDefinition[Any, Any], params: TaskParams | None = None
    ) -> int:
        """Start another task as this run's child, when the transaction is committed."""
        request = other.request(
            params or other.params(),
            trigger=Trigger.SYSTEM,
            actor=self._held.run.task,
            parent_id=self.run_id,
        )
        return runs.trigger(session, request).run.id

    def start_again(self, session: Session, other: TaskDefinition[Any, Any], run_id: int) -> int:
        """Repeat an ended run of ``other`` as this run's child, from its checkpoint."""
        old = runs.one(session, run_id)
        request = other.request(
            other.validate(old.params),
            trigger=Trigger.SYSTEM,
            actor=self._held.run.task,
            parent_id=self.run_id,
        )
        return runs.again(session, run_id, request).run.id

    def take_failures(self, session: Session, run_ids: Collection[int]) -> None:
        """List what other runs could not do as this run's own failed items."""
        run_attempts.take_failures(session, self._held, run_ids)

    def pause(self, reason: str, *, for_s: float) -> NoReturn:
        """End this attempt here, uncounted; the run goes on from its checkpoint later."""
        raise PauseRun(reason, for_s)

    def await_children(self) -> NoReturn:
        """End this attempt here, uncounted; the run goes on when what it started has ended."""
        raise AwaitChildren


def _advanced(
    shown: dict[str, Any], done: int, total: int | None, message: str | None
) -> dict[str, Any]:
    done = max(0, done, shown.get("done") or 0)
    now: dict[str, Any] = {"phase": "running", "done": done}
    if total is not None:
        total = max(total, done)
        percent = 100 * done // total if total else 100
        now |= {"total": total, "percent": max(percent, shown.get("percent") or 0)}
    elif "percent" in shown:
        now |= {name: shown[name] for name in ("total", "percent") if name in shown}
    if message is not None:
        now["message"] = message[:300]
    return now


class _Attempt:
    """One claim, from the check of its parameters to its end."""

    def __init__(
        self,
        services: Services,
        definition: TaskDefinition[Any, Any],
        held: RunClaim,
        lease: LeaseKeeper,
    ) -> None:
        self._definition = definition
        self._held = held
        self._lease = lease
        self._began = time.monotonic()
        self._first_backoff_s = services.settings.job_retry_backoff_s
        self._row = HeldRow(services.database, held)
        self._ctx = RunContext(services, held, check=self._check)

    def run(self) -> None:
        """Work, and write down how it ended."""
        try:
            result = self._work()
        except LeaseLostError as error:
            log.warning("fenced_out", run_id=self._held.row_id, reason=str(error))
        except CancelRun:
            self._end(run_attempts.cancelled)
        except ReleaseRun:
            self._end(run_attempts.release)
        except PauseRun as wish:
            self._end(run_attempts.pause, for_s=wish.for_s, reason=wish.reason)
        except AwaitChildren:
            self._end(run_attempts.wait_for_children)
        except SoftTimeLimitExceeded:
            limit_s = self._definition.soft_limit_s
            self._fail("timed_out", f"it took longer than {limit_s} seconds; what it did is kept")
        except RetryableError as error:
            self._try_again(error.code, str(error))
        except GenonautError as error:
            self._fail(error.code, str(error))
        except DATABASE_AWAY as error:
            self._try_again("database_unavailable", type(error).__name__)
        except Exception as error:
            # Statements and their values are no message for people.
            said = "" if isinstance(error, SQLAlchemyError) else f": {error}"
            words = f"{type(error).__name__}{said}"
            self._ctx.log.error("task_failed", error=words)  # noqa: TRY400 - Celery logs the trace
            self._fail("internal_error", words)
            raise
        else:
            self._complete(result)

    def _work(self) -> dict[str, Any]:
        if self._held.run.cancel_requested_at is not None:
            raise CancelRun
        params = self._definition.validate(self._held.run.params)
        result = self._definition.work(self._ctx, params)
        if not isinstance(result, self._definition.result):
            raise InvalidResultError(
                f"the task gave {type(result).__name__}, not {self._definition.result.__name__}"
            )
        try:
            payload: dict[str, Any] = result.model_dump(mode="json")
            size = len(json.dumps(payload, allow_nan=False))
        except ValueError as error:
            raise InvalidResultError(f"the result is not JSON: {error}") from error
        if size > MAX_RESULT_BYTES:
            raise InvalidResultError(f"the result has {size} bytes; {MAX_RESULT_BYTES} are kept")
        return payload

    def _check(self) -> None:
        """Stop where the lease, the worker or the clock says so."""
        self._lease.check()
        if drain.is_over():
            raise ReleaseRun
        if time.monotonic() - self._began > self._definition.soft_limit_s:
            raise SoftTimeLimitExceeded

    def _complete(self, result: dict[str, Any]) -> None:
        columns = self._ctx.columns()
        columns["progress"] = {**columns["progress"], "phase": "completed", "percent": 100}

        def write(session: Session, held: RunClaim) -> None:
            run_attempts.complete(session, held, result, **columns)

        try:
            self._row.end(write)
        except LeaseLostError as error:
            log.warning("fenced_out", run_id=self._held.row_id, reason=str(error))
        except ConflictError:
            self._end(run_attempts.cancelled)
        else:
            log.info("run_ended", run_id=self._held.row_id, how="completed")

    def _fail(self, code: str, message: str) -> None:
        self._end(run_attempts.fail, code=code, message=message)

    def _try_again(self, code: str, message: str) -> None:
        self._end(run_attempts.try_again, code=code, message=message, first_s=self._first_backoff_s)

    def _end(self, how: Callable[..., Any], **values: Any) -> None:
        log.info("run_ended", run_id=self._held.row_id, how=how.__name__, **values)
        columns = self._ctx.columns()
        if how is run_attempts.fail:
            columns["progress"] = {**columns["progress"], "phase": "failed"}
        try:
            self._row.end(lambda session, held: how(session, held, **values, **columns))
        except LeaseLostError as error:
            log.warning("fenced_out", run_id=self._held.row_id, reason=str(error))
