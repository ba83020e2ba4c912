"""Carry out a plan, let things settle, and gather the books."""

import heapq
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import httpx
from sqlalchemy import func, select

from genonaut.db.models import AbandonedPrompt, GenerationJob, Schedule, TaskRun
from genonaut.domain.lifecycle import UNFINISHED
from genonaut.domain.users import Role
from tests.reliability.program import until
from tests.reliability.rig import Rig
from tests.reliability.soak.audit import audit
from tests.reliability.soak.books import Books, gather
from tests.reliability.soak.desk import Desk
from tests.reliability.soak.faults import KINDS, End, NothingThereError
from tests.reliability.soak.plan import OPERATOR, USERS, Fault, Plan
from tests.reliability.soak.site import API, BEATS, WORKERS, Site
from tests.reliability.ticking import now_at

READY_S = 60.0
PEACE_S = 90.0
"""Once nothing is broken any more, something ends at least so often until all has."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a soak went."""

    plan: Plan
    books: Books
    findings: dict[str, list[str]]
    struck: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Faults that met with nothing to break."""
    settled_s: float = 0.0
    """From the end of the plan until all had ended."""
    orphaned_s: float = 0.0
    """For how long at most a child has outlived its parent."""

    @property
    def is_well(self) -> bool:
        """Whether nothing was found wrong."""
        return not any(self.findings.values())


def soak(rig: Rig, plan: Plan, *, say: Callable[[str], object] = lambda _: None) -> Outcome:
    """Do all that the plan says to the platform of ``rig``, and judge it."""
    (rig.folder / "plan.json").write_text(json.dumps(plan.as_json(), indent=1))
    with ExitStack() as stack:
        site = Site(rig, stack)
        tokens = {name: rig.token(rig.add_user(name)) for name in USERS if name != "ada"}
        tokens["ada"] = rig.token(rig.user_id)
        tokens[OPERATOR] = rig.token(rig.add_user(OPERATOR, role=Role.OPERATOR))
        desk = Desk(site.url, tokens, plan)
        stack.callback(desk.close)
        _open(site)
        desk.make_schedules()
        desk.open()
        struck, missed = _break_things(site, plan, say)
        over_at = time.monotonic()
        unsettled = _settle(site, desk)
        settled_s = time.monotonic() - over_at
        say(f"settled in {settled_s:.0f} s")
        site.close(*WORKERS, API)
        books = gather(rig, desk.asked)
        books.surprises = site.surprises + unsettled
        return Outcome(
            plan=plan,
            books=books,
            findings=audit(books),
            struck=struck,
            missed=missed,
            settled_s=settled_s,
            orphaned_s=max(place.orphaned_s for place in site.places.values()),
        )


def _open(site: Site) -> None:
    """Start every program, and wait until all are at work."""
    site.keep()
    for name in WORKERS:
        site.program(name).wait_for_log(r"\w ready\.", timeout_s=READY_S)
    until(lambda: httpx.get(f"{site.url}/livez", trust_env=False).is_success, "the API answers")
    until(site.rig.has_beat, "a beat leads", READY_S)


def _break_things(
    site: Site, plan: Plan, say: Callable[[str], object]
) -> tuple[Counter[str], Counter[str]]:
    struck: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    began = time.monotonic()
    down: set[str] = set()
    agenda: list[tuple[float, int, Fault | End]] = [
        (fault.at_s, number, fault) for number, fault in enumerate(plan.faults)
    ]
    heapq.heapify(agenda)
    while agenda:
        at_s, number, what = heapq.heappop(agenda)
        site.keep_until(began + at_s)
        if not isinstance(what, Fault):
            what()
            continue
        now_s = time.monotonic() - began
        if what.target in down:  # we are late, or the plan would have it up by now
            missed[what.kind] += 1
            continue
        try:
            end = KINDS[what.kind].strike(site, what.target)
        except NothingThereError:
            missed[what.kind] += 1
            continue
        struck[what.kind] += 1
        lasts = f"for {what.lasts_s:.1f} s" if end is not None and what.lasts_s else ""
        say(f"{now_s:6.1f} s  {what.kind.replace('_', ' ')}: {what.target} {lasts}".rstrip())
        if end is not None:
            down.add(what.target)
            ended = partial(_end, end, down, what.target)
            heapq.heappush(agenda, (now_s + what.lasts_s, number, ended))
    site.keep_until(began + plan.seconds)
    return struck, missed


def _end(end: End, down: set[str], target: str) -> None:
    end()
    down.remove(target)


def _settle(site: Site, desk: Desk) -> list[str]:
    """Wait until all is done; give what is not although nothing has moved for a while."""
    over_at = now_at(site.rig)

    def not_caught_up() -> dict[str, int]:
        with site.rig.database.transaction() as session:
            late = select(func.count()).where(Schedule.next_due_at <= over_at)
            return {"requests": desk.open_requests(), "late schedules": session.scalars(late).one()}

    try:
        _wait_while(site, not_caught_up)
        site.close(*BEATS)
        _wait_while(site, lambda: _unfinished(site.rig))
    except StuckError as error:
        return [str(error)]
    return []


class StuckError(Exception):
    """Nothing moves, and not all is done."""


def _wait_while(site: Site, left: Callable[[], dict[str, int]]) -> None:
    """Wait until nothing is left, for as long as it becomes less: a slow machine is no fault."""
    fewest = sys.maxsize
    stuck_at = 0.0
    while True:
        site.keep()
        now = {name: count for name, count in left().items() if count}
        if not now:
            return
        if sum(now.values()) < fewest:
            fewest, stuck_at = sum(now.values()), time.monotonic() + PEACE_S
        if time.monotonic() > stuck_at:
            raise StuckError(f"nothing ended in {PEACE_S:.0f} s; left: {now}")
        time.sleep(0.2)


def _unfinished(rig: Rig) -> dict[str, int]:
    """Count what is not over."""
    counts = {"prompts at ComfyUI": len(rig.comfy.unfinished())}
    with rig.database.transaction() as session:
        for model in (GenerationJob, TaskRun):
            query = select(func.count()).where(model.status.in_(UNFINISHED))
            counts[model.__tablename__] = session.scalars(query).one()
        prompts = select(func.count()).select_from(AbandonedPrompt)
        counts[AbandonedPrompt.__tablename__] = session.scalars(prompts).one()
    return counts
