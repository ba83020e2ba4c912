"""Work on one claim of a generation job: submit, watch, collect, and write down how it ended.

The row decides everything: whether the claim still holds, whether a cancel was requested, which
prompt belongs to the job.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.clients.comfyui import CancelOutcome, ComfyClient, HistoryEntry, Listener
from genonaut.core.errors import (
    ArtifactTooLargeError,
    BackendUnavailableError,
    ConflictError,
    ExecutionFailedError,
    GenonautError,
    ImageTooLargeError,
    InvalidInputError,
    LeaseLostError,
    RetryableError,
    SubmissionUnclearError,
    UnreadableImageError,
    WorkflowRejectedError,
)
from genonaut.core.workflow import output_images
from genonaut.core.workflow_limits import MAX_IMAGES
from genonaut.db.models import ContentImage, GenerationJob
from genonaut.domain import abandoned, attempts, graphs, thumbnails
from genonaut.domain.attempts import Claim
from genonaut.domain.lifecycle import Status
from genonaut.worker import pictures
from genonaut.worker.backends import answers, client_for, least_busy
from genonaut.worker.held import DATABASE_AWAY, HeldJob, claim_patiently
from genonaut.worker.lease import LeaseKeeper
from genonaut.worker.outcomes import (
    CancelRequestedError,
    DrainError,
    PromptLostError,
    StorageWaitError,
    TimedOutError,
    execution_failed,
)
from genonaut.worker.progress import Reporter
from genonaut.worker.services import Services
from genonaut.worker.vigil import Vigil
from genonaut.worker.watch import PromptWatch, locate_surely

log = structlog.get_logger(__name__)

ELSEWHERE_AFTER_S = 30.0
"""A job whose ComfyUI is down this long is drawn anew on another one, if there is one."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    backend: str
    prompt_id: str
    graph: dict[str, Any]


def run(services: Services, job_id: int, *, worker: str) -> list[int]:
    """Claim a job and bring it as far as it goes; give the ids of its images.

    An empty list means that there was nothing to claim, or that the job ended otherwise or went
    back to the queue: the row says which.
    """
    settings = services.settings

    def claim(session: Session) -> Claim | None:
        return attempts.claim(session, job_id, worker=worker, lease_s=settings.lease_s)

    held = claim_patiently(services.database, job_id, claim)
    if held is None:
        log.info("not_claimed", job_id=job_id)
        return []
    log.info("claimed", job_id=job_id, attempt=held.job.attempt)

    def renew(session: Session) -> None:
        attempts.renew(session, held, lease_s=settings.lease_s)

    with LeaseKeeper(services.database, job_id, renew, every_s=settings.lease_renew_s) as lease:
        return _Attempt(services, held, lease).run()


class _Attempt:
    """One claim, from its first look at ComfyUI to its end."""

    def __init__(self, services: Services, held: Claim, lease: LeaseKeeper) -> None:
        settings = services.settings
        self._services = services
        self._settings = settings
        self._held = held
        self._job = held.job
        self._row = HeldJob(services.database, held)
        self._show = Reporter(self._row, services.events, held.job_id)
        self._vigil = Vigil(
            self._row,
            lease,
            soft_limit_s=settings.task_soft_time_limit_s,
            execution_limit_s=settings.comfyui_execution_timeout,
        )
        self._prompt: _Prompt | None = None
        # An outage that has ended is struck out by noting the start again.
        self._start_noted = (
            held.job.execution_started_at is not None and held.job.waiting_since is None
        )

    def run(self) -> list[int]:
        """Work, and write down how it ended."""
        try:
            return self._work()
        except LeaseLostError:
            return self._on_lease_lost()
        except CancelRequestedError:
            self._stop_prompt()
            self._end(attempts.cancelled)
        except DrainError:
            self._end(attempts.release, reason="the worker is stopping")
        except SoftTimeLimitExceeded:
            self._on_soft_limit()
        except BackendUnavailableError as error:
            self._wait(error.code, str(error), "waiting_for_backend")
        except StorageWaitError as error:
            self._wait(error.code, str(error), "waiting_for_storage")
        except TimedOutError as error:
            self._stop_prompt()
            self._try_again(error, outcome="timed_out")
        except (
            WorkflowRejectedError,
            ArtifactTooLargeError,
            ImageTooLargeError,
            InvalidInputError,
        ) as error:
            self._end(attempts.fail, code=error.code, message=str(error))
            self._stop_prompt()  # a part of what was refused may be queued all the same
        except (RetryableError, ExecutionFailedError, UnreadableImageError) as error:
            self._try_again(error)
        except SQLAlchemyError:
            raise  # the row could not be written; its lease runs out, and it is taken back
        except Exception:
            # A bug: say so in the row at once, instead of leaving it to look like a lost worker.
            self._try_again(GenonautError("Genonaut itself failed; its logs say why"))
            self._stop_prompt()
            raise
        return []

    # --- the way of one prompt -------------------------------------------------------------

    def _work(self) -> list[int]:
        backend = self._choose_backend()
        with client_for(self._settings, backend) as client:
            entry = self._collectable(client, backend) or self._draw(client, backend)
            return self._finish(client, entry)

    def _choose_backend(self) -> str:
        """Stay with the server that has the job's prompt; leave it when it stays away.

        What waits for room to store, or for a server that is back by now, is not drawn twice.
        """
        job = self._job
        if job.comfyui_prompt_id is None or job.backend is None:
            return least_busy(self._settings)
        may_leave = self._waited_s() > ELSEWHERE_AFTER_S and not job.collect_only
        if job.backend not in self._settings.comfyui_urls or (
            may_leave and not answers(self._settings, job.backend)
        ):
            return least_busy(self._settings)
        return job.backend

    def _waited_s(self) -> float:
        since = self._job.waiting_since
        return (self._job.updated_at - since).total_seconds() if since else 0.0

    def _collectable(self, client: ComfyClient, backend: str) -> HistoryEntry | None:
        """Wait for the prompt of an earlier attempt; None when a new one must be posted."""
        prompt_id = self._job.comfyui_prompt_id
        if prompt_id is not None and backend == self._job.backend:
            located = locate_surely(client, prompt_id)
            if located.state != "unknown":
                log.info("reattached", job_id=self._job.id, prompt_id=prompt_id)
                self._prompt = _Prompt(backend, prompt_id, self._graph(prompt_id))
                if located.entry is not None:
                    return located.entry
                with suppress(PromptLostError):
                    return self._watch(client, self._prompt, None)
        if self._job.collect_only:
            self._stop_prompt()  # at a server that is none of ours any more it may still run
            raise PromptLostError(
                "the worker was lost and ComfyUI does not have the pictures", code="worker_lost"
            )
        return None

    def _draw(self, client: ComfyClient, backend: str) -> HistoryEntry:
        """Post a new prompt and wait for its end; post once more when ComfyUI forgets it."""
        client_id = f"genonaut-{self._held.token}"
        with client.listen(client_id) as listener:
            try:
                return self._watch(client, self._submit(client, backend, client_id), listener)
            except PromptLostError as error:
                log.warning("prompt_lost", job_id=self._job.id, reason=str(error))
                return self._watch(client, self._submit(client, backend, client_id), listener)

    def _graph(self, prompt_id: str, *, checkpoint: str = "") -> dict[str, Any]:
        """Build the graph of a prompt; one that is not to be posted again needs no checkpoint."""
        prefix = f"genonaut/{self._job.id}-{prompt_id}"
        return graphs.graph_for(self._job, prefix, checkpoint=checkpoint)

    def _checkpoint(self, client: ComfyClient) -> str:
        job = self._job
        if job.checkpoint_model is not None or "workflow" in job.params:
            return job.checkpoint_model or ""
        offered = client.options().checkpoints
        if not offered:
            raise WorkflowRejectedError("ComfyUI has no checkpoint to draw with")
        return offered[0]

    def _submit(self, client: ComfyClient, backend: str, client_id: str) -> _Prompt:
        prompt_id = str(uuid4())
        graph = self._graph(prompt_id, checkpoint=self._checkpoint(client))
        prompt = _Prompt(backend, prompt_id, graph)
        self._row.write(
            lambda session, held: attempts.begin_prompt(
                session, held, backend=backend, prompt_id=prompt_id
            )
        )
        self._prompt = prompt
        self._start_noted = False  # the row has forgotten the start of the prompt before
        try:
            client.submit(prompt.graph, prompt_id=prompt_id, client_id=client_id)
        except SubmissionUnclearError as error:
            self._submit_again(client, prompt, client_id, error)
        return prompt

    def _submit_again(
        self, client: ComfyClient, prompt: _Prompt, client_id: str, error: SubmissionUnclearError
    ) -> None:
        """ComfyUI may have taken the prompt although it did not say so: look before posting.

        Raises:
            ExecutionFailedError: it answers with an error and has not taken it, twice: this is no
                outage, the graph may be what it trips over.
            BackendUnavailableError: the connection breaks each time.
        """
        log.warning("submission_unclear", job_id=self._job.id, reason=str(error))
        if locate_surely(client, prompt.prompt_id).state != "unknown":
            return
        try:
            client.submit(prompt.graph, prompt_id=prompt.prompt_id, client_id=client_id)
        except SubmissionUnclearError as again:
            if locate_surely(client, prompt.prompt_id).state != "unknown":
                return
            if again.was_answered:
                raise ExecutionFailedError(str(again), code="submission_failed") from again
            raise BackendUnavailableError(str(again)) from again

    def _watch(
        self, client: ComfyClient, prompt: _Prompt, listener: Listener | None
    ) -> HistoryEntry:
        return PromptWatch(
            client,
            prompt.prompt_id,
            prompt.graph,
            vigil=self._vigil,
            show=self._show,
            on_start=self._note_start,
            poll_s=self._settings.comfyui_poll_interval_s,
        ).wait(listener)

    def _note_start(self) -> None:
        if not self._start_noted:
            self._start_noted = self._row.tell(attempts.note_execution_start)

    def _finish(self, client: ComfyClient, entry: HistoryEntry) -> list[int]:
        prompt = self._prompt
        if prompt is None:  # pragma: no cover - an entry is always some prompt's
            raise PromptLostError
        if entry.outcome == "interrupted":
            self._vigil.check(now=True)
            raise ExecutionFailedError("the prompt was interrupted at ComfyUI", code="interrupted")
        if entry.outcome == "error":
            raise execution_failed(entry)
        images = output_images(entry.outputs, prompt.graph)
        if not images:
            raise WorkflowRejectedError("the workflow made no picture", code="no_output")
        if len(images) > MAX_IMAGES:
            message = f"the workflow made {len(images)} pictures; at most {MAX_IMAGES} are kept"
            raise WorkflowRejectedError(message, code="too_many_pictures")
        self._show.phase("collecting", now=True, images=len(images))
        settings, storage = self._settings, self._services.storage
        stored = pictures.collect(
            client,
            storage,
            self._services.renderer,
            images,
            spec=thumbnails.standard(settings.thumbnail_sizes, settings.thumbnail_formats),
            check=lambda: self._vigil.check(now=True),
        )
        details = {"prompt_id": prompt.prompt_id}
        try:
            return self._row.write(
                lambda session, held: attempts.complete(
                    session, held, pictures.kept(session, storage, stored), details=details
                )
            )
        except LeaseLostError:
            raise
        except ConflictError:
            raise CancelRequestedError from None

    # --- endings -------------------------------------------------------------------------------

    def _end(self, how: Callable[..., Any], **values: Any) -> None:
        log.info("attempt_ended", job_id=self._job.id, how=how.__name__, **values)
        try:
            self._row.end(lambda session, held: how(session, held, **values))
        except LeaseLostError:
            self._on_lease_lost()

    def _try_again(self, error: GenonautError, *, outcome: str = "retried") -> None:
        self._end(
            attempts.try_again,
            code=error.code,
            message=str(error),
            backoff_s=self._settings.job_retry_backoff_s,
            outcome=outcome,
        )

    def _wait(self, code: str, reason: str, phase: str, *, keep_prompt: bool = True) -> None:
        self._end(
            attempts.wait,
            code=code,
            reason=reason,
            phase=phase,
            poll_s=self._settings.job_retry_backoff_s,
            deadline_s=self._settings.comfyui_wait_deadline_s,
            keep_prompt=keep_prompt,
        )

    def _on_soft_limit(self) -> None:
        """Give the job back: a prompt that waits is deleted, one that runs is found again.

        A server whose queue does not move counts as one that is away: the wait has a deadline,
        and another server may be chosen.
        """
        if self._is_at_work():
            self._end(attempts.release, reason="its task has had its time; ComfyUI goes on")
            return
        self._stop_prompt()
        reason = "the prompt waited in ComfyUI's queue until the time limit of its task"
        if self._prompt is None:
            reason = "ComfyUI had not taken a prompt when the time limit of the task came"
        self._wait("backend_stuck", reason, "waiting_for_backend", keep_prompt=False)

    def _is_at_work(self) -> bool:
        """Whether our prompt runs or has ended; also when its server cannot be asked now."""
        if self._prompt is None:
            return False
        try:
            with client_for(self._settings, self._prompt.backend) as client:
                return client.locate(self._prompt.prompt_id).state in {"running", "finished"}
        except BackendUnavailableError:
            return True

    def _on_lease_lost(self) -> list[int]:
        """Write nothing; stop our prompt unless the new holder has taken it over.

        A commit whose answer was lost also leads here: then the job has ended with our pictures.
        One that ended otherwise meanwhile still names our prompt, and nobody waits for it.
        """
        ours = self._prompt.prompt_id if self._prompt else None
        try:
            with self._services.database.transaction() as session:
                job = session.get(GenerationJob, self._job.id)
                adopted = (
                    job is not None
                    and job.comfyui_prompt_id == ours
                    and job.status not in {Status.FAILED, Status.CANCELLED}
                )
                query = (
                    select(ContentImage.id)
                    .where(ContentImage.content_id == (job.content_id if job else None))
                    .order_by(ContentImage.position)
                )
                images = list(session.scalars(query)) if adopted else []
        except DATABASE_AWAY as error:
            # Who holds the job now cannot be told: the prompt is better drawn than stopped.
            log.warning("fenced_out", job_id=self._job.id, reason=str(error)[:200])
            return []
        log.warning("fenced_out", job_id=self._job.id, adopted=adopted)
        if self._prompt is not None and not adopted:
            self._stop_prompt()
        return images

    def _stop_prompt(self) -> None:
        """Remove the job's prompt at ComfyUI; what cannot be done now the reconciler does."""
        backend, prompt_id = self._job.backend, self._job.comfyui_prompt_id
        if self._prompt is not None:
            backend, prompt_id = self._prompt.backend, self._prompt.prompt_id
        if prompt_id is None or backend is None:
            return
        try:
            with client_for(self._settings, backend) as client:
                if client.cancel(prompt_id) is not CancelOutcome.STILL_RUNNING:
                    return
        except BackendUnavailableError as error:
            log.warning("prompt_not_removed", prompt_id=prompt_id, reason=str(error))
        with suppress(*DATABASE_AWAY), self._services.database.transaction() as session:
            abandoned.abandon(session, backend, prompt_id)
