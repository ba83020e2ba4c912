"""Keep sockets up to date: events as they happen, and the rows again every few seconds.

Events are hints that may be lost. What a socket shows is right because its first message is read
after its subscription was confirmed, only higher versions follow, and every watched row is read
again from time to time.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.clients.bus import EventSubscriber, Heard
from genonaut.core.events import Event
from genonaut.db.models import GenerationJob, UserNotification
from genonaut.db.session import Database
from genonaut.domain import generation, notifications
from genonaut.domain.lifecycle import UNFINISHED
from genonaut.domain.users import LoginId, roles

log = structlog.get_logger(__name__)

T = TypeVar("T")
Key = tuple[str, int]

_WAITING_MAX = 512
_SEEN_MAX = 4096
_NOTICES_AGAIN = timedelta(seconds=30)


class Mailbox:
    """Hold what one socket has yet to send: of each row the newest version only.

    When a slow reader lets too much pile up, the oldest passing states are dropped (they are read
    again later); final states never are. If those alone are too many, ``overflowed`` is set and
    the socket must be closed: its client gets a snapshot when it returns. The same goes for
    ``logged_out``, which is set when the ``login`` that opened the socket has ended.
    """

    def __init__(self, login: LoginId | None = None) -> None:
        self.login = login
        self.logged_out = False
        self.overflowed = False
        self._waiting: dict[Key, Heard] = {}
        self._seen: dict[Key, int] = {}
        self._open_jobs: set[int] = set()
        self._frame: bytes | None = None
        self._news = asyncio.Event()

    def know(self, kind: str, row_id: int, version: int, *, final: bool) -> None:
        """Note what the socket has been sent already."""
        key = (kind, row_id)
        self._seen[key] = max(version, self._seen.get(key, 0))
        self._track(kind, row_id, final=final)
        if len(self._seen) > _SEEN_MAX:
            for old in [k for k in self._seen if k[1] not in self._open_jobs][: _SEEN_MAX // 2]:
                del self._seen[old]

    def offer(self, heard: Heard) -> None:
        """Take an event, unless the same or a newer version is known."""
        key = (heard.kind, heard.id)
        waiting = self._waiting.get(key)
        if heard.version <= (waiting.version if waiting else self._seen.get(key, 0)):
            return
        self._waiting[key] = heard
        self._track(heard.kind, heard.id, final=heard.final)
        if len(self._waiting) > _WAITING_MAX:
            passing = next((k for k, h in self._waiting.items() if not h.final), None)
            if passing is None:
                self.overflowed = True
            else:
                del self._waiting[passing]
        self._news.set()

    def offer_frame(self, frame: bytes) -> None:
        """Take a preview; the newest replaces one that is still waiting."""
        self._frame = frame
        self._news.set()

    def log_out(self) -> None:
        """Let nothing more out: the login has ended."""
        self.logged_out = True
        self._news.set()

    async def take(self) -> Heard | bytes | None:
        """Wait for the next thing to send; None when the socket must be closed."""
        while True:
            if self.overflowed or self.logged_out:
                return None
            while self._waiting:
                key = next(iter(self._waiting))
                heard = self._waiting.pop(key)
                if heard.version > self._seen.get(key, 0):
                    self.know(heard.kind, heard.id, heard.version, final=heard.final)
                    return heard
            if self._frame is not None:
                frame, self._frame = self._frame, None
                return frame
            self._news.clear()
            await self._news.wait()

    def open_jobs(self) -> dict[int, int]:
        """Give the jobs that may still change, with the newest version known of each."""
        return {
            job_id: max(
                self._seen.get(("job", job_id), 0),
                waiting.version if (waiting := self._waiting.get(("job", job_id))) else 0,
            )
            for job_id in self._open_jobs
        }

    def _track(self, kind: str, row_id: int, *, final: bool) -> None:
        if kind == "job":
            (self._open_jobs.discard if final else self._open_jobs.add)(row_id)


@dataclass(frozen=True, slots=True)
class _Watched:
    """What to read again: jobs with the version known of each, users to see what is new, logins."""

    jobs: dict[int, int]
    users: frozenset[UUID]
    logins: frozenset[LoginId]


class Live:
    """Serve every socket of this process with one Redis connection and one look at the rows."""

    def __init__(
        self, database: Database, subscriber: EventSubscriber, *, reread_s: float = 5.0
    ) -> None:
        self._database = database
        self._subscriber = subscriber
        self._reread_s = reread_s
        self._mailboxes: dict[str, set[Mailbox]] = {}
        self._threads: CapacityLimiter | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; call it on the event loop that serves the sockets."""
        # Threads of our own: a thousand sockets that return at once leave the rest to requests.
        self._threads = CapacityLimiter(4)
        self._subscriber.start()
        self._task = asyncio.create_task(self._reread_forever(), name="live-reread")

    async def stop(self) -> None:
        """End; sockets are closed by the server."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._subscriber.stop()

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a transaction, off the event loop."""

        def whole() -> T:
            with self._database.transaction() as session:
                return work(session)

        return await to_thread.run_sync(whole, limiter=self._threads)

    @asynccontextmanager
    async def watching(
        self, topic: str, *, login: LoginId | None, previews_of: int | None = None
    ) -> AsyncIterator[Mailbox]:
        """Collect the events of ``topic``; the subscription is confirmed when the block begins.

        If Redis is away the block begins all the same, and the rows are read every few seconds.
        """
        mailbox = Mailbox(login)
        self._mailboxes.setdefault(topic, set()).add(mailbox)
        try:
            await self._subscriber.watch(topic, mailbox.offer)
            if previews_of is not None:
                await self._subscriber.watch_previews(previews_of, mailbox.offer_frame)
            yield mailbox
        finally:
            self._mailboxes[topic].discard(mailbox)
            if not self._mailboxes[topic]:
                del self._mailboxes[topic]
            await self._subscriber.unwatch(topic, mailbox.offer)
            if previews_of is not None:
                await self._subscriber.unwatch_previews(previews_of, mailbox.offer_frame)

    async def _reread_forever(self) -> None:
        while True:
            await asyncio.sleep(self._reread_s)
            watched = self._watched()
            if not self._mailboxes:
                continue
            try:
                events, ended = await self.read(partial(_look, watched=watched))
            except SQLAlchemyError as error:
                log.warning("reread_failed", error=type(error).__name__)
                continue
            for mailbox in self._all():
                if mailbox.login in ended:
                    mailbox.log_out()
            for event in events:
                self._deliver(event)

    def _all(self) -> list[Mailbox]:
        return [mailbox for mailboxes in self._mailboxes.values() for mailbox in mailboxes]

    def _watched(self) -> _Watched:
        jobs: dict[int, int] = {}
        for mailbox in self._all():
            for job_id, version in mailbox.open_jobs().items():
                jobs[job_id] = min(version, jobs.get(job_id, version))
        users = frozenset(
            UUID(topic.removeprefix("user:"))
            for topic in self._mailboxes
            if topic.startswith("user:")
        )
        logins = frozenset(box.login for box in self._all() if box.login is not None)
        return _Watched(jobs, users, logins)

    def _deliver(self, event: Event) -> None:
        heard = Heard(event.kind, event.id, event.version, event.final, message_text(event))
        for topic in event.topics:
            for mailbox in self._mailboxes.get(topic, ()):
                mailbox.offer(heard)


def message_text(event: Event) -> str:
    """Give the message a socket is sent, the same as over Redis."""
    return json.dumps(event.payload(), separators=(",", ":"))


def _look(session: Session, watched: _Watched) -> tuple[list[Event], set[LoginId]]:
    """Read what has changed, and which logins have ended."""
    ended = set(watched.logins) - roles(session, watched.logins).keys()
    return _changes(session, watched), ended


def _changes(session: Session, watched: _Watched) -> list[Event]:
    """Read which watched rows are newer than known, and what users have got since."""
    newer = set()
    if watched.jobs:
        versions = session.execute(
            select(GenerationJob.id, GenerationJob.version).where(
                GenerationJob.id.in_(watched.jobs)
            )
        )
        newer = {job_id for job_id, version in versions if version > watched.jobs[job_id]}
    events: list[Event] = []
    if watched.users:
        found = session.scalars(
            select(GenerationJob.id).where(
                GenerationJob.user_id.in_(watched.users), GenerationJob.status.in_(UNFINISHED)
            )
        )
        newer |= {job_id for job_id in found if job_id not in watched.jobs}
        notices = session.scalars(
            select(UserNotification).where(
                UserNotification.user_id.in_(watched.users),
                UserNotification.created_at > func.now() - _NOTICES_AGAIN,
            )
        )
        events += [notifications.describe(notice) for notice in notices]
    if newer:
        jobs = session.scalars(select(GenerationJob).where(GenerationJob.id.in_(newer)))
        events += [generation.describe(job) for job in jobs]
    return events


def snapshot_text(row_id: int | None, version: int, data: dict[str, Any], *, final: bool) -> str:
    """Give the first message of a socket."""
    return json.dumps(
        {"type": "snapshot", "id": row_id, "version": version, "final": final, "data": data},
        separators=(",", ":"),
    )
