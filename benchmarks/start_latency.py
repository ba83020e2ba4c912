"""Start a job on an idle worker, against ``delay()`` of plain Celery on the same broker."""

import json
import time
from collections.abc import Iterator
from typing import Any

import redis
from celery import Celery

from benchmarks.harness.plain_queue import STARTED
from benchmarks.harness.report import Goal, note, percentile, tell
from benchmarks.harness.stage import NAMESPACE, Account, Stage, stage
from genonaut.domain import generation
from genonaut.domain.generation import NewJob
from genonaut.worker.dispatch import Dispatcher
from genonaut.worker.queue_app import celery, configuration
from tests.support.servers import free_port

GOAL = Goal("start_latency", "ms to start, p99", 2.0, better="lower")
SECONDS = 35.0
PAUSE_S = 0.03
PATIENCE_S = 30.0


class _Ours:
    """Commit a job, and wait until the bus tells of its claim, which is after that's commit."""

    def __init__(self, on: Stage, account: Account) -> None:
        self._on = on
        self._account = account
        celery.conf.update(configuration(on.settings))
        self._dispatcher = Dispatcher(on.database, on.settings)
        self._dispatcher.start()
        on.database.sinks.append(self._dispatcher.on_events)
        self._bus = redis.Redis.from_url(on.settings.redis_url).pubsub()
        self._bus.psubscribe(f"{NAMESPACE}:events:job:*")

    def start_one(self) -> float:
        """Give the time to the claim, ms, once the job has ended and the worker is idle again."""
        began = time.perf_counter()
        with self._on.database.transaction() as session:
            job = generation.create(
                session,
                self._account.user_id,
                NewJob("a lighthouse at dawn", checkpoint_model="any"),
                max_attempts=4,
            )
        claimed = 0.0
        for event in self._events_of(job.id):
            if not claimed and event["data"]["status"] == "running":
                claimed = time.perf_counter()
            if event["final"]:
                break
        return (claimed - began) * 1000

    def _events_of(self, job_id: int) -> Iterator[dict[str, Any]]:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            message = self._bus.get_message(ignore_subscribe_messages=True, timeout=1)
            if message is not None:
                event = json.loads(message["data"])
                if event["id"] == job_id:
                    yield event
        raise RuntimeError(f"job {job_id} did not end")

    def close(self) -> None:
        self._dispatcher.stop()
        self._bus.close()


class _Plain:
    """Send a task, and wait for the moment it says it began."""

    def __init__(self, url: str) -> None:
        self._app = Celery("plain", broker=url, set_as_current=False)
        self._app.conf.task_ignore_result = True
        self._task = self._app.signature("start")
        self._redis = redis.Redis.from_url(url)

    def start_one(self) -> float:
        """Give the time to the task's first line, ms."""
        began = time.time()
        self._task.delay()
        found = self._redis.blpop([STARTED], PATIENCE_S)
        if found is None:
            raise RuntimeError("the plain worker did not begin")
        return (float(found[1]) - began) * 1000


def main() -> None:
    """Measure one start of each in turn, so that both meet the same noise."""
    port = free_port()
    with stage(comfyui_url=f"http://127.0.0.1:{port}") as on:
        on.serve("benchmarks.harness.peers:refusing_comfyui", "--no-access-log", port=port)
        flags = ["--concurrency=2", "--without-gossip", "--without-mingle"]
        worker = ["-m", "celery", "--quiet"]
        on.run(*worker, "--app=genonaut.worker.queue_app", "worker", "--queues=generation", *flags)
        on.run(*worker, "--app=benchmarks.harness.plain_queue", "worker", *flags)
        (account,) = on.make_accounts(1)
        ours, plain = _Ours(on, account), _Plain(on.environment["BENCH_REDIS_URL"])
        for side in (ours, plain) * 5:
            side.start_one()
        mine: list[float] = []
        theirs: list[float] = []
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for side, found in ((ours, mine), (plain, theirs)):
                time.sleep(PAUSE_S)
                found.append(side.start_one())
        ours.close()
    for name, found in (("ours", mine), ("peer", theirs)):
        p50, p99 = percentile(found, 0.5), percentile(found, 0.99)
        note(f"{name}: {len(found)} starts, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    tell(GOAL, [(percentile(mine, 0.99), percentile(theirs, 0.99))])


if __name__ == "__main__":
    main()
