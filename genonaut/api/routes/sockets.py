"""Serve the WebSockets: one job or run, everything of one's own, all runs."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.api import auth
from genonaut.api.deps import Services
from genonaut.api.live import ADMIN, NEWS_AGAIN, Mailbox, snapshot_text
from genonaut.core.errors import ForbiddenError, UnauthorizedError
from genonaut.db.models import GenerationJob, TaskRun
from genonaut.domain import generation, health, notifications, runs
from genonaut.domain.lifecycle import FINAL, UNFINISHED
from genonaut.domain.users import Principal, Role
from genonaut.worker.queues import GENERATION, QUEUES

router = APIRouter()

T = TypeVar("T")

DONE = 1000
TRY_AGAIN = 1013
NO_LOGIN = 4401
NOT_YOURS = 4403
UNKNOWN = 4404

_SEND_TIMEOUT_S = 30.0
_DIGITS = re.compile(r"[0-9]{1,18}")
_SNAPSHOT_ROWS = 200


class _Refused(Exception):  # noqa: N818 - an answer, not a failure
    """Close the socket with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The first message, what it makes known to the socket, and whether it is also the last."""

    text: str
    known: tuple[tuple[str, int, int, bool], ...]
    final: bool = False


@router.websocket("/ws/jobs/{job_id}")
async def job_socket(socket: WebSocket, job_id: str) -> None:
    """Send a job's state and every change of it, and with `?previews=1` pictures of it at work."""
    services: Services = socket.app.state.services
    previews = socket.query_params.get("previews") in {"1", "true"}
    await socket.accept()
    try:
        wanted = _row_id(job_id)

        def allow(session: Session, who: Principal) -> None:
            job = session.get(GenerationJob, wanted)
            if job is None:
                raise _Refused(UNKNOWN, "there is no such job")
            if job.user_id != who.user_id:
                raise _Refused(NOT_YOURS, "this job is another user's")

        def snapshot(session: Session) -> _Snapshot:
            job = session.get_one(GenerationJob, wanted)
            final = job.status in FINAL
            text = snapshot_text(job.id, job.version, generation.public(job), final=final)
            return _Snapshot(text, (("job", job.id, job.version, final),), final)

        who = await _enter(socket, services, allow)
        async with services.live.watching(
            f"job:{wanted}", login=who.login, previews_of=wanted if previews else None
        ) as mailbox:
            await _serve(socket, services, mailbox, snapshot, until_final=True)
    except _Refused as refused:
        await _close(socket, refused.code, str(refused))


@router.websocket("/ws/me")
async def my_socket(socket: WebSocket) -> None:
    """Send one's unfinished jobs and unread count, then every change and notification.

    With `?runs=1` auditors are sent what `/ws/admin` sends, too: a page needs one socket only.
    With `?previews=1` pictures of one's jobs at work are sent, each after its job's id.
    """
    services: Services = socket.app.state.services
    previews = socket.query_params.get("previews") in {"1", "true"}
    with_runs = socket.query_params.get("runs") in {"1", "true"}
    least = Role.AUDITOR if with_runs else Role.USER
    await socket.accept()
    try:
        who = await _enter(socket, services, lambda _, who: who.require(least))

        def snapshot(session: Session) -> _Snapshot:
            jobs = generation.list_for(
                session, who.user_id, statuses=tuple(UNFINISHED), limit=_SNAPSHOT_ROWS
            )
            unread, told = notifications.unread_and_recent(session, who.user_id, within=NEWS_AGAIN)
            data: dict[str, Any] = {
                "jobs": [generation.public(job) for job in jobs],
                "unread": unread,
            }
            known = [("job", job.id, job.version, False) for job in jobs]
            known += [("notification", row_id, version, True) for row_id, version in told.items()]
            if with_runs:
                all_runs = _all_runs(session)
                data.update(all_runs.data)
                known += all_runs.known
            return _Snapshot(snapshot_text(None, 0, data, final=False), tuple(known))

        topics = [f"user:{who.user_id}", *([ADMIN] if with_runs else [])]
        async with services.live.watching(
            *topics, login=who.login, role=least, previews=previews
        ) as mailbox:
            await _serve(socket, services, mailbox, snapshot, until_final=False)
    except _Refused as refused:
        await _close(socket, refused.code, str(refused))


@router.websocket("/ws/runs/{run_id}")
async def run_socket(socket: WebSocket, run_id: str) -> None:
    """Send a run's state and every change of it, to auditors."""
    services: Services = socket.app.state.services
    await socket.accept()
    try:
        wanted = _row_id(run_id)

        def allow(session: Session, who: Principal) -> None:
            who.require(Role.AUDITOR)
            if session.get(TaskRun, wanted) is None:
                raise _Refused(UNKNOWN, "there is no such run")

        def snapshot(session: Session) -> _Snapshot:
            run = session.get_one(TaskRun, wanted)
            final = run.status in FINAL
            text = snapshot_text(run.id, run.version, runs.public(run), final=final)
            return _Snapshot(text, (("run", run.id, run.version, final),), final)

        who = await _enter(socket, services, allow)
        async with services.live.watching(
            f"run:{wanted}", login=who.login, role=Role.AUDITOR
        ) as mailbox:
            await _serve(socket, services, mailbox, snapshot, until_final=True)
    except _Refused as refused:
        await _close(socket, refused.code, str(refused))


@router.websocket("/ws/admin")
async def admin_socket(socket: WebSocket) -> None:
    """Send the unfinished runs and how full the queues are, then every run's changes."""
    services: Services = socket.app.state.services
    await socket.accept()
    try:

        def snapshot(session: Session) -> _Snapshot:
            found = _all_runs(session)
            return _Snapshot(snapshot_text(None, 0, found.data, final=False), tuple(found.known))

        who = await _enter(socket, services, lambda _, who: who.require(Role.AUDITOR))
        async with services.live.watching(ADMIN, login=who.login, role=Role.AUDITOR) as mailbox:
            await _serve(socket, services, mailbox, snapshot, until_final=False)
    except _Refused as refused:
        await _close(socket, refused.code, str(refused))


@router.websocket("/ws/{rest:path}")
async def unknown_socket(socket: WebSocket, rest: str) -> None:  # noqa: ARG001 - of the path
    """Say that there is no such socket; a refused handshake would not tell."""
    await socket.accept()
    await _close(socket, UNKNOWN, "there is nothing at this address")


@dataclass(frozen=True, slots=True)
class _AllRuns:
    """What auditors are shown first."""

    data: dict[str, Any]
    known: list[tuple[str, int, int, bool]]


def _all_runs(session: Session) -> _AllRuns:
    found = runs.list_runs(session, statuses=tuple(UNFINISHED), limit=_SNAPSHOT_ROWS)
    queues = health.queues(session, QUEUES, job_queue=GENERATION)
    data = {
        "runs": [runs.public(run) for run in found],
        "queues": {state.queue: state.public() for state in queues},
    }
    return _AllRuns(data, [("run", run.id, run.version, False) for run in found])


def _row_id(given: str) -> int:
    return int(given) if _DIGITS.fullmatch(given) else 0


async def _enter(
    socket: WebSocket, services: Services, allow: Callable[[Session, Principal], None]
) -> Principal:
    """Give who is at a socket, if ``allow`` raises nothing; a ticket is used up in any case."""
    try:
        credentials = auth.of_socket(socket, services.settings)
    except ForbiddenError as error:
        raise _Refused(NOT_YOURS, str(error)) from error

    def enter(session: Session) -> Principal | _Refused:
        who = credentials.authenticate(session)
        try:
            allow(session, who)
        except _Refused as refused:
            return refused  # raised here, it would take back what was just written
        except ForbiddenError as error:
            return _Refused(NOT_YOURS, str(error))
        return who

    found = await _read(services, enter)
    if isinstance(found, _Refused):
        raise found
    return found


async def _read(services: Services, work: Callable[[Session], T]) -> T:
    try:
        return await services.live.read(work)
    except UnauthorizedError as error:
        raise _Refused(NO_LOGIN, str(error)) from error
    except SQLAlchemyError as error:
        raise _Refused(TRY_AGAIN, "the database does not answer") from error


async def _serve(
    socket: WebSocket,
    services: Services,
    mailbox: Mailbox,
    snapshot: Callable[[Session], _Snapshot],
    *,
    until_final: bool,
) -> None:
    """Send the snapshot and what follows, until the client leaves or there is no more to say."""
    first = await _read(services, snapshot)
    for kind, row_id, version, final in first.known:
        mailbox.know(kind, row_id, version, final=final)
    pace = _Pace()
    sending = asyncio.create_task(_send(socket, mailbox, first, pace, until_final=until_final))
    leaving = asyncio.create_task(_until_left(socket))
    try:
        ended: set[asyncio.Task[None]] = set()
        while not ended:
            ended, _ = await asyncio.wait(
                {sending, leaving},
                timeout=_SEND_TIMEOUT_S / 3,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not ended and pace.is_stuck():
                raise _Refused(TRY_AGAIN, "too slow; connect again for a snapshot")
        if sending.done():
            sending.result()
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)


class _Pace:
    """Notice a client that does not take what is sent, without a timer for every message."""

    def __init__(self) -> None:
        self._since: float | None = None

    def is_stuck(self) -> bool:
        """Whether one message has been on its way for too long."""
        return self._since is not None and time.monotonic() - self._since > _SEND_TIMEOUT_S

    async def keep(self, sending: Awaitable[None]) -> None:
        """Send, and know since when."""
        self._since = time.monotonic()
        await sending
        self._since = None


async def _send(
    socket: WebSocket, mailbox: Mailbox, first: _Snapshot, pace: _Pace, *, until_final: bool
) -> None:
    try:
        await pace.keep(socket.send_text(first.text))
        ended = until_final and first.final
        while not ended:
            item = await mailbox.take()
            if mailbox.logged_out:
                raise _Refused(NO_LOGIN, "the login has ended")
            if mailbox.demoted:
                raise _Refused(NOT_YOURS, "this is no longer for your role")
            if item is None:
                raise _Refused(TRY_AGAIN, "too slow; connect again for a snapshot")
            if isinstance(item, bytes):
                await pace.keep(socket.send_bytes(item))
            else:
                await pace.keep(socket.send_text(item.text))
                ended = until_final and item.final
        await _close(socket, DONE, "it has ended")
    except WebSocketDisconnect:
        return


async def _until_left(socket: WebSocket) -> None:
    """Wait for the client to leave; what it says meanwhile is ignored."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with suppress(
        WebSocketDisconnect, RuntimeError, TimeoutError
    ):  # it may have left in this moment
        async with asyncio.timeout(_SEND_TIMEOUT_S):
            await socket.close(code, reason[:120])
