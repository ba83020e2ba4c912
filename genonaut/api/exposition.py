"""Write a reading as Prometheus takes it: base units, few labels, each with few values.

Every series is there from the start, at 0 when there is nothing, so that an alert needs no
``absent()``. Nothing is kept from one scrape to the next, and nothing is of this process alone:
whichever API process is asked, the answer is the same.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from genonaut.domain import delivery_health
from genonaut.domain.health import ProcessState, QueueState
from genonaut.domain.lifecycle import FINAL, UNFINISHED, Status
from genonaut.domain.metrics import LATELY, OUTCOMES, Reading

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of the text format that every scraper reads."""
ROLES = ("beat", "worker")

_LATELY = f"in the last {LATELY.total_seconds():.0f} seconds"


@dataclass(frozen=True, slots=True)
class _Scrape(Collector):
    """Stand where a registry does, which would outlive the scrape."""

    families: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        """Give what was read."""
        return self.families


def write(reading: Reading | None, *, version: str, channels: Collection[str]) -> bytes:
    """Give the page; without a reading it says that the database did not answer.

    ``channels`` are named though nothing is to be sent over them.
    """
    about = InfoMetricFamily("genonaut_build", "What runs here.", {"version": version})
    up = _one("up", "Whether the database could be read: 1 if so.", reading is not None)
    told = () if reading is None else tuple(_told(reading, channels))
    return generate_latest(_Scrape((up, about, *told)))


def _told(reading: Reading, channels: Collection[str]) -> Iterator[Metric]:
    yield from _queues(reading.queues, reading.processes)
    states = sorted(UNFINISHED)
    yield _by("jobs", "Unfinished generation jobs.", "status", reading.jobs, states)
    yield _by("runs", "Unfinished runs of maintenance tasks.", "status", reading.runs, states)
    yield from _deliveries(reading.deliveries, channels, states)
    yield from _processes(reading.processes)
    text = "Schedules that have been due for more than a minute and may fire."
    yield _one("schedules_late", text, reading.late.count)
    text = "For how long the first schedule that may fire has been due."
    yield _one("schedule_lateness_seconds", text, reading.late.late_s)
    for name, what, label, counts, known in (
        ("job_attempts", "Attempts at jobs", "outcome", reading.ended_attempts, OUTCOMES),
        ("runs", "Runs", "status", reading.ended_runs, sorted(FINAL)),
        ("deliveries", "Deliveries", "status", reading.ended_deliveries, sorted(FINAL)),
    ):
        yield _by(f"recent_{name}", f"{what} that ended {_LATELY}.", label, counts, known)


def _queues(states: list[QueueState], processes: list[ProcessState]) -> Iterator[Metric]:
    def each(name: str, text: str, values: Iterable[float]) -> Metric:
        names = (state.queue for state in states)
        return _by(f"queue_{name}", text, "queue", dict(zip(names, values, strict=True)))

    yield each("depth", "Jobs and runs a worker might take now.", (s.due for s in states))
    yield each("running", "Jobs and runs that are worked on.", (s.running for s in states))
    text = "For how long the first that a worker might take has waited; 0 if none does."
    yield each("oldest_waiting_seconds", text, (s.oldest_due_s or 0 for s in states))
    text = "Jobs and runs that have been due for 30 seconds without a message at the broker."
    yield each("unpublished", text, (s.unpublished for s in states))
    serving = (sum(p.is_alive and p.serves(s.queue) for p in processes) for s in states)
    yield each("workers", "Workers seen within a minute that serve the queue.", serving)


def _deliveries(
    found: Mapping[str, Mapping[str, Any]], channels: Collection[str], states: list[Status]
) -> Iterator[Metric]:
    counted = {name: delivery_health.nothing() for name in channels} | dict(found)
    text = "Unfinished deliveries of notifications."
    family = GaugeMetricFamily("genonaut_deliveries", text, labels=("channel", "status"))
    for channel, counts in counted.items():
        for state in states:
            family.add_metric((channel, state), counts[state])
    yield family
    text = "For how long the first delivery that might be sent has waited; 0 if none does."
    ages = {name: counts["oldest_due_s"] or 0 for name, counts in counted.items()}
    yield _by("delivery_oldest_waiting_seconds", text, "channel", ages)


def _processes(processes: list[ProcessState]) -> Iterator[Metric]:
    # None that reports was last seen an infinite time ago: an alert on the age sees that too.
    ages = {
        role: min((p.seen_s for p in processes if p.kind == role), default=math.inf)
        for role in ROLES
    }
    text = "Since one of the role was last seen; +Inf if none reports."
    yield _by("heartbeat_age_seconds", text, "role", ages)


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"genonaut_{name}", text, value)


def _by(
    name: str, text: str, label: str, values: Mapping[str, float], known: Iterable[str] = ()
) -> Metric:
    family = GaugeMetricFamily(f"genonaut_{name}", text, labels=(label,))
    for at, value in {**dict.fromkeys(known, 0), **values}.items():
        family.add_metric((at,), value)
    return family
