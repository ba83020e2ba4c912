"""Say from a seed what will be asked for, what will be broken, and when. Same seed, same plan."""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Literal

from tests.reliability.soak.faults import KINDS

JOBS_PER_S = 1.8
RUNS_PER_S = 0.35
RUSH_EVERY_S = 20.0
PACE_S = 3.5
"""Seconds from one fault to the next, on average."""
FIRST_S = 2.0

USERS = ("ada", "bob", "eve")
OPERATOR = "olga"

MAX_SEED = 2**32

Verb = Literal["submit_job", "cancel_job", "retry_job", "start_run", "cancel_run", "retry_run"]

SCHEDULES: dict[str, dict[str, Any]] = {
    "tick": {"task": "toys.tick", "every_s": 1},
    "tick-or-skip": {"task": "toys.tick", "every_s": 2, "missed": "skip", "late_limit_s": 4},
    "linger-or-skip": {
        "task": "toys.linger",
        "every_s": 2,
        "overlap": "skip",
        "params": {"label": "skip", "seconds": 2.5},
    },
    "linger-in-turn": {
        "task": "toys.linger",
        "every_s": 3,
        "overlap": "wait",
        "params": {"label": "wait", "seconds": 1.0},
    },
    "count-by-itself": {
        "task": "toys.beside",
        "every_s": 7,
        "params": {"upto": 20, "diary": ""},
    },
}
"""Interval schedules that tick from the first moment to the last."""

_DOOMED = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "none.safetensors"}},
    "2": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}
"""A workflow that the API takes and ComfyUI refuses: there is no such checkpoint."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to break, and for how long."""

    at_s: float
    kind: str
    target: str
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Act:
    """One thing to ask the API for.

    What makes something has a ``number`` of its own; what is about something made names that as
    ``of``. ``times`` is how often the same request is sent at once, under one Idempotency-Key.
    """

    at_s: float
    verb: Verb
    user: str
    number: int = 0
    of: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    times: int = 1
    is_doomed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All that will be done in ``seconds`` seconds."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    acts: tuple[Act, ...]

    def as_json(self) -> dict[str, Any]:
        """Give it ready for JSON."""
        return {**asdict(self), "schedules": SCHEDULES}


def make(seed: int, seconds: float, *, pace_s: float = PACE_S) -> Plan:
    """Draw up the plan of a seed."""
    # Of each its own dice: a fault more or less must not change what is asked for.
    numbers = count(1)
    acts = [
        *_about_jobs(random.Random(f"{seed} jobs"), seconds, numbers),
        *_about_runs(random.Random(f"{seed} runs"), seconds, numbers),
    ]
    return Plan(
        seed,
        seconds,
        tuple(_faults(random.Random(f"{seed} faults"), seconds, pace_s)),
        tuple(sorted(acts, key=lambda act: (act.at_s, act.number, act.of))),
    )


def _faults(dice: random.Random, seconds: float, pace_s: float) -> Iterator[Fault]:
    """Deal the kinds like cards, so that each comes up; nothing is struck that is struck still."""
    free_at: dict[str, float] = {}
    hand: list[str] = []
    at_s = FIRST_S
    while at_s < seconds:
        if len(hand) <= len(KINDS) // 2:
            hand += dice.sample(sorted(KINDS), len(KINDS))
        for kind in hand:
            targets = [target for target in KINDS[kind].targets if free_at.get(target, 0.0) <= at_s]
            if targets:
                hand.remove(kind)
                made = Fault(
                    at_s,
                    kind,
                    dice.choice(targets),
                    round(min(dice.uniform(*KINDS[kind].lasts_s), max(0.0, seconds - at_s)), 2),
                )
                free_at[made.target] = at_s + made.lasts_s + KINDS[kind].rest_s
                yield made
                break
        at_s = round(at_s + dice.uniform(0.2, 1.8) * pace_s, 2)


def _about_jobs(dice: random.Random, seconds: float, numbers: Iterator[int]) -> Iterator[Act]:
    bodies: list[dict[str, Any]] = []
    rushes = [dice.uniform(0, seconds) for _ in range(max(1, round(seconds / RUSH_EVERY_S)))]
    for _ in range(round(seconds * JOBS_PER_S)):
        # Half of them come all at once, so that there is a backlog to lose.
        moment = dice.uniform(0, seconds) if dice.random() < 0.5 else dice.choice(rushes)
        at_s = round(moment, 2)
        is_doomed = dice.random() < 0.03
        body = _doomed_body() if is_doomed else _body(dice, bodies)
        made = Act(
            at_s,
            "submit_job",
            dice.choice(USERS),
            number=next(numbers),
            body=body,
            times=2 if dice.random() < 0.1 else 1,
            is_doomed=is_doomed,
        )
        yield made
        yield from _about("job", made, dice, seconds, numbers, cancels=0.2)


def _about_runs(dice: random.Random, seconds: float, numbers: Iterator[int]) -> Iterator[Act]:
    for _ in range(round(seconds * RUNS_PER_S)):
        number = next(numbers)
        task = dice.choice(["toys.count", "toys.wait", "toys.beside", "toys.beside", "toys.keyed"])
        params: dict[str, Any] = {"upto": dice.choice([5, 10, 20, 40, 100])}
        if task != "toys.count":  # those that ask for the same get the same run
            params["diary"] = f"{number}.diary"
        made = Act(
            round(dice.uniform(0, seconds), 2),
            "start_run",
            OPERATOR,
            number=number,
            task=task,
            body={"params": params},
            times=2 if dice.random() < 0.1 else 1,
        )
        yield made
        yield from _about("run", made, dice, seconds, numbers, cancels=0.3)


def _about(
    what: Literal["job", "run"],
    made: Act,
    dice: random.Random,
    seconds: float,
    numbers: Iterator[int],
    *,
    cancels: float,
) -> Iterator[Act]:
    """Change one's mind about something, and again."""
    if dice.random() >= cancels:
        return
    at_s = min(seconds, round(made.at_s + dice.expovariate(1.0), 2))
    yield Act(at_s, f"cancel_{what}", made.user, of=made.number)  # type: ignore[arg-type]
    if dice.random() < 0.5:
        again_at_s = min(seconds, round(at_s + dice.uniform(0.5, 10), 2))
        yield Act(
            again_at_s,
            f"retry_{what}",  # type: ignore[arg-type]
            made.user,
            number=next(numbers),
            of=made.number,
            is_doomed=made.is_doomed,
        )


def _body(dice: random.Random, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """Ask for a picture; now and then for one that was asked for before."""
    if bodies and dice.random() < 0.05:
        return dice.choice(bodies)
    side = 64 if dice.random() < 0.9 else 256
    steps = dice.randint(30, 90) if side == 64 and dice.random() < 0.05 else dice.randint(1, 8)
    made = {
        "prompt": f"a lighthouse in the rain, {len(bodies)}",
        "width": side,
        "height": side,
        "batch_size": dice.choice([1, 1, 1, 2, 3]),
        "sampler_params": {"steps": steps, "seed": dice.randrange(MAX_SEED)},
    }
    bodies.append(made)
    return made


def _doomed_body() -> dict[str, Any]:
    return {"prompt": "what nobody can draw", "workflow": _DOOMED}
