"""Work on one claim of a generation job: submit, watch, collect.

The row decides everything: whether the claim still holds, whether a cancel was requested, which
prompt belongs to the job. ComfyUI's socket is a hint; its queue and history are polled beside it.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select

from genonaut.clients.comfyui import (
    Cached,
    CancelOutcome,
    ComfyClient,
    Executing,
    Failed,
    HistoryEntry,
    Interrupted,
    Listener,
    Located,
    Started,
    Step,
)
from genonaut.core.errors import (
    ArtifactTooLargeError,
    BackendUnavailableError,
    ConflictError,
    ExecutionFailedError,
    GenonautError,
    InvalidInputError,
    LeaseLostError,
    RetryableError,
    SubmissionUnclearError,
    UnreadableImageError,
    WorkflowRejectedError,
)
from genonaut.core.workflow import ProgressMeter, output_images
from genonaut.db.models import ContentImage, GenerationJob
from genonaut.domain import attempts, generation
from genonaut.domain.attempts import Claim
from genonaut.worker import drain, pictures
from genonaut.worker.backends import client_for, least_busy
from genonaut.worker.held import HeldRow
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

log = structlog.get_logger(__name__)

ROW_CHECK_S = 1.0
BACKEND_PATIENCE_S = 10.0
"""A ComfyUI that is silent for this long while we watch counts as down."""
ELSEWHERE_AFTER_S = 30.0
"""A job whose ComfyUI is down this long is drawn anew on another one, if there is one."""
LOST_CONFIRM_S = 0.5


@dataclass(slots=True)
class _Prompt:
    prompt_id: str
    graph: dict[str, Any]


def run(services: Services, job_id: int, *, worker: str) -> list[int]:
    """Claim a job and bring it as far as it goes; give the ids of its images.

    An empty list means that there was nothing to claim, or that the job ended otherwise or went
    back to the queue: the row says which.
    """
    settings = services.settings
    with services.database.transaction() as session:
        held = attempts.claim(session, job_id, worker=worker, lease_s=settings.lease_s)
    if held is None:
        log.info("not_claimed", job_id=job_id)
        return []
    log.info("claimed", job_id=job_id, attempt=held.job.attempt)
    with LeaseKeeper(
        services.database, held, lease_s=settings.lease_s, every_s=settings.lease_renew_s
    ) as lease:
        return _Attempt(services, held, lease).run()


class _Attempt:
    """One claim, from its first look at ComfyUI to its end."""

    def __init__(self, services: Services, held: Claim, lease: LeaseKeeper) -> None:
        self._services = services
        self._settings = services.settings
        self._held = held
        self._job = held.job
        self._lease = lease
        self._row = HeldRow(services.database, held)
        self._show = Reporter(self._row, services.events, held.job_id)
        self._backend: str | None = held.job.backend
        self._prompt: _Prompt | None = None
        self._started = held.job.execution_started_at is not None
        self._row_checked_at = 0.0
        self._webhook_at: datetime | None = None
        self._webhook_seen = False

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
            self._wait(error, "waiting_for_backend")
        except StorageWaitError as error:
            self._wait(error, "waiting_for_storage")
        except TimedOutError as error:
            self._stop_prompt()
            self._try_again(error, outcome="timed_out")
        except (WorkflowRejectedError, ArtifactTooLargeError, InvalidInputError) as error:
            self._end(attempts.fail, code=error.code, message=str(error))
        except (RetryableError, ExecutionFailedError, UnreadableImageError) as error:
            self._try_again(error)
        return []

    # --- the way of one prompt -------------------------------------------------------------

    def _work(self) -> list[int]:
        self._backend = self._choose_backend()
        with client_for(self._settings, self._backend) as client:
            entry = self._collectable(client) or self._draw(client)
            return self._finish(client, entry)

    def _collectable(self, client: ComfyClient) -> HistoryEntry | None:
        """Wait for the prompt of an earlier attempt; None when a new one must be posted."""
        prompt_id = self._job.comfyui_prompt_id
        if prompt_id is not None and self._backend == self._job.backend:
            located = self._locate_surely(client, prompt_id)
            if located.state != "unknown":
                log.info("reattached", job_id=self._job.id, prompt_id=prompt_id)
                self._prompt = _Prompt(prompt_id, self._graph(client, prompt_id))
                with suppress(PromptLostError):
                    return self._watch(client, self._prompt, None)
        if self._job.collect_only:
            raise PromptLostError(
                "the worker was lost and ComfyUI does not have the pictures", code="worker_lost"
            )
        return None

    def _draw(self, client: ComfyClient) -> HistoryEntry:
        """Post a new prompt and wait for its end; post once more when ComfyUI forgets it."""
        client_id = f"genonaut-{self._held.token}"
        with client.listen(client_id) as listener:
            try:
                return self._watch(client, self._submit(client, client_id), listener)
            except PromptLostError as error:
                log.warning("prompt_lost", job_id=self._job.id, reason=str(error))
                return self._watch(client, self._submit(client, client_id), listener)

    def _choose_backend(self) -> str:
        """Stay with the server that has the job's prompt; leave it when it stays away."""
        job = self._job
        if job.comfyui_prompt_id is None or job.backend is None:
            return least_busy(self._settings)
        known = job.backend in self._settings.comfyui_urls
        if not known or (self._waited_s() > ELSEWHERE_AFTER_S and not job.collect_only):
            return least_busy(self._settings)
        return job.backend

    def _waited_s(self) -> float:
        since = self._job.waiting_since
        return (self._job.updated_at - since).total_seconds() if since else 0.0

    def _graph(self, client: ComfyClient, prompt_id: str) -> dict[str, Any]:
        job = self._job
        checkpoint = job.checkpoint_model
        if checkpoint is None and "workflow" not in job.params:
            offered = client.options().checkpoints
            if not offered:
                raise WorkflowRejectedError("ComfyUI has no checkpoint to draw with")
            checkpoint = offered[0]
        prefix = f"genonaut/{job.id}-{prompt_id}"
        return generation.graph_for(job, prefix, checkpoint=checkpoint or "")

    def _submit(self, client: ComfyClient, client_id: str) -> _Prompt:
        prompt_id = str(uuid4())
        graph = self._graph(client, prompt_id)
        prompt = _Prompt(prompt_id, graph)
        self._row.write(
            lambda session, held: attempts.begin_prompt(
                session, held, backend=self._backend or "", prompt_id=prompt_id
            )
        )
        self._prompt = prompt
        self._started = False  # the row has forgotten the start of the prompt before
        try:
            client.submit(graph, prompt_id=prompt_id, client_id=client_id)
        except SubmissionUnclearError as error:
            self._submit_again(client, prompt, client_id, error)
        return prompt

    def _submit_again(
        self, client: ComfyClient, prompt: _Prompt, client_id: str, error: SubmissionUnclearError
    ) -> None:
        """ComfyUI may have taken the prompt although it did not say so: look before posting."""
        log.warning("submission_unclear", job_id=self._job.id, reason=str(error))
        if self._locate_surely(client, prompt.prompt_id).state == "unknown":
            try:
                client.submit(prompt.graph, prompt_id=prompt.prompt_id, client_id=client_id)
            except SubmissionUnclearError as again:
                if self._locate_surely(client, prompt.prompt_id).state == "unknown":
                    raise BackendUnavailableError(str(again)) from again

    def _locate_surely(self, client: ComfyClient, prompt_id: str) -> Located:
        """Locate a prompt; look twice before calling it unknown."""
        located = client.locate(prompt_id)
        if located.state == "unknown":
            time.sleep(LOST_CONFIRM_S)
            located = client.locate(prompt_id)
        return located

    def _watch(
        self, client: ComfyClient, prompt: _Prompt, listener: Listener | None
    ) -> HistoryEntry:
        """Wait for the end of the prompt, showing its progress.

        Raises: CancelRequestedError, DrainError, LeaseLostError, TimedOutError, PromptLostError,
            BackendUnavailableError.
        """
        meter = ProgressMeter(prompt.graph)
        silent_since: float | None = None
        look_at = 0.0
        while True:
            self._check()
            if self._hear(prompt, meter, listener):
                look_at = 0.0
            if self._webhook_seen:
                self._webhook_seen, look_at = False, 0.0
            if time.monotonic() < look_at:
                continue
            try:
                located = client.locate(prompt.prompt_id)
                if located.state == "unknown":
                    located = self._locate_surely(client, prompt.prompt_id)
                silent_since = None
            except BackendUnavailableError as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > BACKEND_PATIENCE_S:
                    raise
                self._show.phase("waiting_for_backend", reason=str(error)[:300])
                located = None
            look_at = time.monotonic() + self._settings.comfyui_poll_interval_s
            if located is None:
                continue
            if located.entry is not None:
                return located.entry
            if located.state == "unknown":
                raise PromptLostError("ComfyUI lost the prompt, probably in a restart")
            if located.state == "pending":
                self._show.phase("queued_at_backend", position=located.position)
            else:
                self._note_start()
                if listener is None:
                    self._show.phase("drawing")

    def _hear(self, prompt: _Prompt, meter: ProgressMeter, listener: Listener | None) -> bool:
        """Take the socket's news for a moment; whether it says that the prompt ended."""
        if listener is None:
            time.sleep(0.25)
            return False
        ended = False
        for event in listener.poll(0.25):
            if getattr(event, "prompt_id", None) != prompt.prompt_id:
                continue
            match event:
                case Started():
                    self._note_start()
                    self._show.steps(meter.executing(None))
                case Cached(nodes=nodes):
                    meter.cached(nodes)
                case Executing(node=None) | Failed() | Interrupted():
                    ended = True
                case Executing(node=node):
                    self._show.steps(meter.executing(node))
                case Step(node=node, value=value, max=maximum):
                    self._show.steps(meter.step(node, value, maximum))
                case _:
                    pass
        self._show.frame(listener, prompt.prompt_id)
        return ended

    def _finish(self, client: ComfyClient, entry: HistoryEntry) -> list[int]:
        prompt = self._prompt
        if prompt is None:  # pragma: no cover - an entry is always some prompt's
            raise PromptLostError
        if entry.outcome == "interrupted":
            self._check(now=True)
            raise ExecutionFailedError("the prompt was interrupted at ComfyUI", code="interrupted")
        if entry.outcome == "error":
            raise execution_failed(entry)
        images = output_images(entry.outputs, prompt.graph)
        if not images:
            raise WorkflowRejectedError("the workflow made no picture", code="no_output")
        self._show.phase("collecting", now=True, images=len(images))
        try:
            stored = pictures.collect(
                client, self._services.storage, images, check=lambda: self._check(now=True)
            )
        except RetryableError as error:
            if isinstance(error, BackendUnavailableError):
                raise
            raise StorageWaitError(str(error)) from error
        details = {"backend": self._backend, "prompt_id": prompt.prompt_id}
        try:
            return self._row.write(
                lambda session, held: attempts.complete(session, held, stored, details=details)
            )
        except LeaseLostError:
            raise
        except ConflictError:
            raise CancelRequestedError from None

    # --- looking at the row ------------------------------------------------------------------

    def _check(self, *, now: bool = False) -> None:
        """Stop where the row, the worker or the clock says so."""
        self._lease.check()
        if drain.is_over():
            raise DrainError
        if not now and time.monotonic() - self._row_checked_at < ROW_CHECK_S:
            return
        self._row_checked_at = time.monotonic()
        seen = self._row.glance()
        if seen is None:
            return
        if seen.cancel_requested:
            raise CancelRequestedError
        if seen.webhook_received_at != self._webhook_at:
            self._webhook_at = seen.webhook_received_at
            self._webhook_seen = True
        limit_s = self._settings.comfyui_execution_timeout
        if seen.executing_s is not None and seen.executing_s > limit_s:
            raise TimedOutError(f"ComfyUI took longer than {limit_s} seconds")

    def _note_start(self) -> None:
        if not self._started:
            self._started = True
            self._row.tell(attempts.note_execution_start)

    # --- endings -------------------------------------------------------------------------------

    def _end(self, how: Callable[..., Any], **values: Any) -> None:
        log.info("attempt_ended", job_id=self._job.id, how=how.__name__, **values)
        try:
            self._row.write(lambda session, held: how(session, held, **values))
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

    def _wait(self, error: GenonautError, phase: str) -> None:
        self._end(
            attempts.wait,
            code=error.code,
            reason=str(error),
            phase=phase,
            poll_s=self._settings.job_retry_backoff_s,
            deadline_s=self._settings.comfyui_wait_deadline_s,
        )

    def _on_soft_limit(self) -> None:
        """Give the job back: a prompt that waits is deleted, one that runs is found again."""
        running = False
        if self._prompt is not None and self._backend is not None:
            try:
                with client_for(self._settings, self._backend) as client:
                    running = client.locate(self._prompt.prompt_id).state in {
                        "running",
                        "finished",
                    }
            except BackendUnavailableError:
                running = True  # it cannot be deleted now; the next claim looks for it
        if not running:
            self._stop_prompt()
        self._end(
            attempts.release,
            reason="it waited at ComfyUI until the time limit of its task",
            keep_prompt=running,
        )

    def _on_lease_lost(self) -> list[int]:
        """Write nothing; stop our prompt unless the new holder has taken it over.

        A commit whose answer was lost also leads here: then the job has ended with our pictures.
        """
        with self._services.database.transaction() as session:
            job = session.get(GenerationJob, self._job.id)
            ours = self._prompt.prompt_id if self._prompt else None
            adopted = job is not None and job.comfyui_prompt_id == ours
            query = (
                select(ContentImage.id)
                .where(ContentImage.content_id == (job.content_id if job else None))
                .order_by(ContentImage.position)
            )
            images = list(session.scalars(query)) if adopted else []
        log.warning("fenced_out", job_id=self._job.id, adopted=adopted)
        if self._prompt is not None and not adopted:
            self._stop_prompt()
        return images

    def _stop_prompt(self) -> None:
        """Remove our prompt at ComfyUI, as far as it lets us."""
        prompt_id = self._prompt.prompt_id if self._prompt else self._job.comfyui_prompt_id
        if prompt_id is None or self._backend is None:
            return
        with suppress(BackendUnavailableError), client_for(self._settings, self._backend) as client:
            if client.cancel(prompt_id) is CancelOutcome.STILL_RUNNING:
                log.warning("prompt_still_runs", job_id=self._job.id, prompt_id=prompt_id)
