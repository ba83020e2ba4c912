"""Show the schedules as RedBeat's entries, for whoever looks there.

Nothing here is ever read to decide what is due. An entry's score is its row's next due time, below
zero while it is paused; its times are as of the last pass. Its argument names no run, so a message
that another RedBeat would send for it is dropped by the worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule
from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf, get_redis, to_timestamp

from genonaut.db.session import Database
from genonaut.domain import schedule_clock
from genonaut.domain.schedule_clock import Shown

REPAIR_S = 15.0
_PAGE = 1000
_NO_RUN = 0


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a pass had to do: entries written anew, moved to another time, and removed."""

    written: int = 0
    moved: int = 0
    removed: int = 0


class Entry(RedBeatSchedulerEntry):
    """A row as an entry; when it is due is the row's business, not Celery's."""

    row_due_at: datetime | None = None

    @property
    def due_at(self) -> datetime | None:
        """When the row is due; None while it is paused."""
        return self.row_due_at


class Projection:
    """Make the entries in Redis those of the rows, and no others."""

    def __init__(self, app: Celery, database: Database) -> None:
        self._app = app
        self._database = database
        self._written: dict[str, tuple[int, str | None]] = {}

    def repair(self) -> Repaired:
        """Write what is missing or was changed, remove what has no row.

        Raises:
            SQLAlchemyError: PostgreSQL is away.
            RedisError: Redis is.
        """
        ensure_conf(self._app)
        conf: Any = self._app.redbeat_conf
        client: Any = get_redis(self._app)
        with self._database.transaction() as session:
            rows = schedule_clock.to_show(session)
        keys = {row.name: RedBeatSchedulerEntry.generate_key(self._app, row.name) for row in rows}
        scores: dict[str, float] = dict(client.zrange(conf.schedule_key, 0, -1, withscores=True))
        found = self._definitions(client, list(keys.values()))
        written: list[Shown] = []
        moved = 0
        for row in rows:
            key = keys[row.name]
            is_same = found[key] and (row.version, found[key]) == self._written.get(row.name)
            if not is_same:
                written.append(row)
            elif abs(scores.get(key, float("nan")) - _score(row)) < 0.001:
                continue
            else:
                moved += 1
            self._write(row)
        found = self._definitions(client, [keys[row.name] for row in written])
        for row in written:
            self._written[row.name] = (row.version, found[keys[row.name]])
        strangers = scores.keys() - set(keys.values())
        for key in strangers:
            name = key.removeprefix(conf.key_prefix)
            RedBeatSchedulerEntry(name, app=self._app).delete()
            client.zrem(conf.schedule_key, key)
            self._written.pop(name, None)
        return Repaired(len(written), moved, len(strangers))

    def _definitions(self, client: Any, keys: Sequence[str]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for start in range(0, len(keys), _PAGE):
            page = keys[start : start + _PAGE]
            with client.pipeline(transaction=False) as pipe:
                for key in page:
                    pipe.hget(key, "definition")
                found.update(zip(page, pipe.execute(), strict=True))
        return found

    def _write(self, row: Shown) -> None:
        entry = self._entry(row).save()
        if row.last_due_at is not None:
            entry.reschedule(row.last_due_at)  # which saving keeps, if there is any

    def _entry(self, row: Shown) -> Entry:
        entry = Entry(
            name=row.name,
            task=row.task,
            schedule=_celery_schedule(row.cron, row.every_s),
            args=(_NO_RUN,),
            enabled=row.paused_at is None,
            app=self._app,
        )
        entry.last_run_at = row.last_due_at  # Celery would say: now
        entry.row_due_at = row.next_due_at if row.paused_at is None else None
        return entry


def _score(row: Shown) -> float:
    return float(to_timestamp(row.next_due_at)) if row.paused_at is None else -1.0


@lru_cache(maxsize=4096)
def _celery_schedule(cron: str | None, every_s: int | None) -> BaseSchedule:
    if cron is None:
        return schedule(timedelta(seconds=every_s or 1))
    minute, hour, day, month, weekday = cron.split()
    return crontab(
        minute=minute, hour=hour, day_of_month=day, month_of_year=month, day_of_week=weekday
    )
