"""The end of a pool process ends no worker, whenever it comes."""

import os
import signal
from collections.abc import Iterator

import pytest
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from genonaut.worker import prefork
from genonaut.worker.queue_app import celery
from tests.support.simulator import wait_until


@pytest.fixture
def hub() -> Iterator[Hub]:
    before = get_event_loop()
    made = Hub()
    set_event_loop(made)
    yield made
    made.close()
    set_event_loop(before)


@pytest.fixture
def pool(hub: Hub) -> Iterator[prefork.TaskPool]:
    made = prefork.TaskPool(2, app=celery, threads=False, initargs=(celery, "worker-1"))
    made.start()
    made.register_with_event_loop(hub)
    yield made
    made.terminate()


def test_a_connection_made_anew_just_when_a_process_has_ended_is_no_failure(hub, pool) -> None:
    celerys = pool._pool
    first = celerys._pool[0]
    os.kill(first.pid, signal.SIGKILL)
    celerys._untrack_child_process(first, hub)  # its end is noticed, and it is still in the pool
    pool.register_with_event_loop(hub)

    def is_replaced() -> bool:
        celerys.maintain_pool()
        return first not in celerys._pool and len(celerys._pool) == 2

    wait_until(is_replaced)
