"""Keep sockets up to date: events as they happen, and the rows again every few seconds.

Events are hints that may be lost. What a socket shows is right because its first message is read
after its subscription was confirmed, only higher versions follow, and every watched row is read
again from time to time.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy import Select, func, or_, select, true, union_all
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, defer

from genonaut.clients.bus import DeliverFrame, EventSubscriber, Heard
from genonaut.core.events import Event
from genonaut.db.models import GenerationJob, TaskRun
from genonaut.db.session import Database
from genonaut.domain import generation, notifications, runs, users
from genonaut.domain.lifecycle import UNFINISHED
from genonaut.domain.users import LoginId, Role

log = structlog.get_logger(__name__)

T = TypeVar("T")
Key = tuple[str, int]

_WAITING_MAX = 512
_SEEN_MAX = 4096
_NEWEST_RUNS = 200
_NEWEST_JOBS = 20
"""Of one user; more do not come and end while events are lost."""
NEWS_AGAIN = timedelta(seconds=30)
"""What came, or ended, within this time is read again, as its event may have been lost."""
ADMIN = "admin"
"""The topic of everything auditors may see."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Rows that change until they end, and so are read again."""

    model: type[GenerationJob] | type[TaskRun]
    rows: Select[Any]
    describe: Callable[[Any], Event]


_KINDS = {
    "job": _Kind(GenerationJob, select(GenerationJob), generation.describe),
    "run": _Kind(TaskRun, select(TaskRun).options(defer(TaskRun.log_tail)), runs.describe),
}


class Mailbox:
    """Hold what one socket has yet to send: of each row the newest version only.

    When a slow reader lets too much pile up, the oldest passing states are dropped (they are read
    again later); final states never are. If those alone are too many, ``overflowed`` is set and
    the socket must be closed: its client gets a snapshot when it returns. The same goes for
    ``logged_out``, which is set when the ``login`` that opened the socket has ended, and for
    ``demoted``, when it no longer has the ``role`` the socket is for.
    """

    def __init__(self, login: LoginId | None = None, *, role: Role = Role.USER) -> None:
        self.login = login
        self.role = role
        self.logged_out = False
        self.demoted = False
        self.overflowed = False
        self._waiting: dict[Key, Heard] = {}
        self._seen: dict[Key, int] = {}
        self._open: set[Key] = set()
        self._frames: dict[int | None, bytes] = {}
        self.jobs_changed = asyncio.Event()
        self._news = asyncio.Event()

    def know(self, kind: str, row_id: int, version: int, *, final: bool) -> None:
        """Note what the socket has been sent already."""
        key = (kind, row_id)
        self._seen[key] = max(version, self._seen.get(key, 0))
        self._track(key, final=final)
        if len(self._seen) > _SEEN_MAX:
            for old in [k for k in self._seen if k not in self._open][: _SEEN_MAX // 2]:
                del self._seen[old]

    def offer(self, heard: Heard) -> None:
        """Take an event, unless the same or a newer version is known."""
        key = (heard.kind, heard.id)
        waiting = self._waiting.get(key)
        if heard.version <= (waiting.version if waiting else self._seen.get(key, 0)):
            return
        self._waiting[key] = heard
        self._track(key, final=heard.final)
        if len(self._waiting) > _WAITING_MAX:
            passing = next((k for k, h in self._waiting.items() if not h.final), None)
            if passing is None:
                self.overflowed = True
            else:
                del self._waiting[passing]
        self._news.set()

    def offer_frame(self, frame: bytes, *, job_id: int | None = None) -> None:
        """Take a preview; the newest replaces one of the same job that is still waiting.

        With a ``job_id`` it is sent with the id before it, in eight bytes, the highest first.
        """
        self._frames[job_id] = frame if job_id is None else job_id.to_bytes(8, "big") + frame
        self._news.set()

    def check(self, role: Role | None) -> None:
        """Let nothing more out if the login has ended, or has too small a role now."""
        self.logged_out = role is None
        self.demoted = role is not None and not role.includes(self.role)
        if self.logged_out or self.demoted:
            self._news.set()

    async def take(self) -> Heard | bytes | None:
        """Wait for the next thing to send; None when the socket must be closed."""
        while True:
            if self.overflowed or self.logged_out or self.demoted:
                return None
            while self._waiting:
                key = next(iter(self._waiting))
                heard = self._waiting.pop(key)
                if heard.version > self._seen.get(key, 0):
                    self.know(heard.kind, heard.id, heard.version, final=heard.final)
                    return heard
            while self._frames:
                job_id = next(iter(self._frames))
                frame = self._frames.pop(job_id)
                if job_id is None or ("job", job_id) in self._open:
                    return frame
            self._news.clear()
            await self._news.wait()

    def open_rows(self) -> dict[Key, int]:
        """Give the rows that may still change, with the newest version known of each."""
        return {
            key: max(
                self._seen.get(key, 0),
                waiting.version if (waiting := self._waiting.get(key)) else 0,
            )
            for key in self._open
        }

    def open_ids(self, kind: str) -> frozenset[int]:
        """Give the rows of a kind that have not ended."""
        return frozenset(row_id for of, row_id in self._open if of == kind)

    def _track(self, key: Key, *, final: bool) -> None:
        if key[0] in _KINDS and (key in self._open) == final:
            (self._open.discard if final else self._open.add)(key)
            self.jobs_changed.set()


@dataclass(frozen=True, slots=True)
class _Watched:
    """What to read again.

    ``rows`` are those of each kind with the version known of each. ``users`` want to know of new
    jobs, and auditors of new runs (None: nobody does), beside those that all their sockets know.
    """

    rows: dict[str, dict[int, int]]
    users: dict[UUID, frozenset[int]]
    runs: frozenset[int] | None
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
        self,
        *topics: str,
        login: LoginId | None,
        role: Role = Role.USER,
        previews_of: int | None = None,
        previews: bool = False,
    ) -> AsyncIterator[Mailbox]:
        """Collect the events of ``topics``; the subscription is confirmed when the block begins.

        If Redis is away the block begins all the same, and the rows are read every few seconds.
        A ``login`` that ends, or loses the ``role``, ends what is collected. ``previews`` collects
        pictures of every job the mailbox knows, while it is unfinished.
        """
        mailbox = Mailbox(login, role=role)
        following = asyncio.create_task(self._follow_previews(mailbox)) if previews else None
        for topic in topics:
            self._mailboxes.setdefault(topic, set()).add(mailbox)
        try:
            for topic in topics:
                await self._subscriber.watch(topic, mailbox.offer)
            if previews_of is not None:
                await self._subscriber.watch_previews(previews_of, mailbox.offer_frame)
            yield mailbox
        finally:
            if following is not None:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
            for topic in topics:
                self._mailboxes[topic].discard(mailbox)
                if not self._mailboxes[topic]:
                    del self._mailboxes[topic]
                await self._subscriber.unwatch(topic, mailbox.offer)
            if previews_of is not None:
                await self._subscriber.unwatch_previews(previews_of, mailbox.offer_frame)

    async def _follow_previews(self, mailbox: Mailbox) -> None:
        """Hear the previews of a mailbox's jobs as they come and end."""
        heard: dict[int, DeliverFrame] = {}
        try:
            while True:
                mailbox.jobs_changed.clear()
                wanted = mailbox.open_ids("job")
                for job_id in wanted - heard.keys():
                    heard[job_id] = partial(mailbox.offer_frame, job_id=job_id)
                    # Not waited for: a frame that is missed is followed by another.
                    await self._subscriber.watch_previews(job_id, heard[job_id], timeout_s=0)
                for job_id in heard.keys() - wanted:
                    await self._subscriber.unwatch_previews(job_id, heard[job_id])
                    del heard[job_id]
                await mailbox.jobs_changed.wait()
        finally:
            for job_id, deliver in heard.items():
                await self._subscriber.unwatch_previews(job_id, deliver)

    async def _reread_forever(self) -> None:
        while True:
            await asyncio.sleep(self._reread_s)
            watched = self._watched()
            if not self._mailboxes:
                continue
            try:
                events, roles = await self.read(partial(_look, watched=watched))
            except SQLAlchemyError as error:
                log.warning("reread_failed", error=type(error).__name__)
                continue
            for mailbox in self._all():
                if mailbox.login in watched.logins:
                    mailbox.check(roles.get(mailbox.login))
            for event in events:
                self._deliver(event)

    def _all(self) -> list[Mailbox]:
        return [mailbox for mailboxes in self._mailboxes.values() for mailbox in mailboxes]

    def _watched(self) -> _Watched:
        rows: dict[str, dict[int, int]] = {kind: {} for kind in _KINDS}
        for mailbox in self._all():
            for (kind, row_id), version in mailbox.open_rows().items():
                rows[kind][row_id] = min(version, rows[kind].get(row_id, version))
        users = {
            UUID(topic.removeprefix("user:")): _known_to_all(mailboxes, "job")
            for topic, mailboxes in self._mailboxes.items()
            if topic.startswith("user:")
        }
        auditors = self._mailboxes.get(ADMIN)
        return _Watched(
            rows,
            users,
            runs=_known_to_all(auditors, "run") if auditors else None,
            logins=frozenset(box.login for box in self._all() if box.login is not None),
        )

    def _deliver(self, event: Event) -> None:
        heard = Heard(event.kind, event.id, event.version, event.final, message_text(event))
        for topic in event.topics:
            for mailbox in self._mailboxes.get(topic, ()):
                mailbox.offer(heard)


def message_text(event: Event) -> str:
    """Give the message a socket is sent, the same as over Redis."""
    return json.dumps(event.payload(), separators=(",", ":"))


def _known_to_all(mailboxes: set[Mailbox], kind: str) -> frozenset[int]:
    return frozenset.intersection(*(mailbox.open_ids(kind) for mailbox in mailboxes))


def _look(session: Session, watched: _Watched) -> tuple[list[Event], dict[LoginId, Role]]:
    """Read what has changed, and which roles the logins have that have not ended."""
    return list(_changes(session, watched)), users.roles(session, watched.logins)


def _changes(session: Session, watched: _Watched) -> Iterator[Event]:
    """Read which watched rows are newer than known, and what users and auditors have got since."""
    newer = {kind: _newer(session, kind, known) for kind, known in watched.rows.items()}
    if watched.users:
        newer["job"] |= _new_jobs(session, watched.users)
        notices = notifications.recent(session, watched.users, within=NEWS_AGAIN)
        yield from map(notifications.describe, notices)
    if watched.runs is not None:
        newer["run"] |= _new_runs(session) - watched.runs
    for kind, found in newer.items():
        if found:
            of = _KINDS[kind]
            yield from map(of.describe, session.scalars(of.rows.where(of.model.id.in_(found))))


def _newer(session: Session, kind: str, known: dict[int, int]) -> set[int]:
    if not known:
        return set()
    model = _KINDS[kind].model
    versions = session.execute(select(model.id, model.version).where(model.id.in_(known)))
    return {row_id for row_id, version in versions if version > known[row_id]}


def _new_jobs(session: Session, known: dict[UUID, frozenset[int]]) -> set[int]:
    """Find the jobs, unfinished or just ended, that a socket of their owner does not know."""
    job = GenerationJob
    unfinished = select(job.id, job.user_id).where(
        job.user_id.in_(known), job.status.in_(UNFINISHED)
    )
    owner = select(func.unnest(array(list(known))).label("id")).subquery()
    newest = (
        select(job.id, job.completed_at)
        .where(job.user_id == owner.c.id)
        .order_by(job.id.desc())
        .limit(_NEWEST_JOBS)
        .lateral()
    )
    just_ended = (
        select(newest.c.id, owner.c.id)
        .join_from(owner, newest, true())
        .where(newest.c.completed_at > func.now() - NEWS_AGAIN)
    )
    found = session.execute(union_all(unfinished, just_ended))
    return {job_id for job_id, user_id in found if job_id not in known[user_id]}


def _new_runs(session: Session) -> set[int]:
    """Find the newest runs that are unfinished or have just ended."""
    newest = (
        select(TaskRun.id, TaskRun.status, TaskRun.completed_at)
        .order_by(TaskRun.id.desc())
        .limit(_NEWEST_RUNS)
        .subquery()
    )
    has_just_ended = newest.c.completed_at > func.now() - NEWS_AGAIN
    found = select(newest.c.id).where(or_(newest.c.status.in_(UNFINISHED), has_just_ended))
    return set(session.scalars(found))


def snapshot_text(row_id: int | None, version: int, data: dict[str, Any], *, final: bool) -> str:
    """Give the first message of a socket."""
    return json.dumps(
        {"type": "snapshot", "id": row_id, "version": version, "final": final, "data": data},
        separators=(",", ":"),
    )
