"""Measure two sides in turns and tell the result as one JSON line."""

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """What a benchmark is called, in what unit it measures, and what ratio it aims at."""

    bench: str
    unit: str
    ratio: float
    better: Literal["higher", "lower"] = "higher"

    def is_met(self, ratio: float) -> bool:
        """Whether a measured ratio, ours to the peer's, reaches the goal."""
        return ratio >= self.ratio if self.better == "higher" else ratio <= self.ratio


def note(text: str) -> None:
    """Tell a detail, beside the result."""
    print(text, file=sys.stderr, flush=True)


def in_turns(
    rounds: int, ours: Callable[[], float], peer: Callable[[], float]
) -> list[tuple[float, float]]:
    """Measure both sides ``rounds`` times; who begins changes, so that drift hits both alike."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            theirs = peer()
            mine = ours()
        else:
            mine = ours()
            theirs = peer()
        pairs.append((mine, theirs))
        note(f"round {number + 1}: ours {mine:.1f}, peer {theirs:.1f}, ratio {mine / theirs:.2f}")
    return pairs


def tell(goal: Goal, pairs: list[tuple[float, float]]) -> None:
    """Print the result: medians of the rounds; the ratio is that of each round by itself."""
    result = {
        "bench": goal.bench,
        "ours": round(statistics.median(mine for mine, _ in pairs), 2),
        "peer": round(statistics.median(theirs for _, theirs in pairs), 2),
        "unit": goal.unit,
        "ratio": round(statistics.median(mine / theirs for mine, theirs in pairs), 3),
        "goal": goal.ratio,
        "better": goal.better,
    }
    print(json.dumps(result), flush=True)


def percentile(values: list[float], share: float) -> float:
    """Give the value below which ``share`` of all lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
