"""What one worker process works with, and how its parts get along."""

import threading
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import text

from genonaut.clients.storage import open_storage
from genonaut.db.models import TaskRun
from genonaut.domain import orphans, run_attempts
from genonaut.worker.held import HeldRow, guard_patiently
from genonaut.worker.lease import LeaseKeeper
from genonaut.worker.services import Services
from genonaut.worker.tasks.thumbnails import Params

MOST_THREADS = next(
    limit.le for limit in Params.model_fields["threads"].metadata if hasattr(limit, "le")
)


@pytest.fixture
def services(committed_database, make_settings):
    made = Services.connect(make_settings(storage_min_free_mb=0))
    yield made
    made.renderer.close()
    made.events.close()
    made.database.close()


def test_a_store_that_stalls_costs_no_run_its_lease(services, make_run_claim):
    """However many threads put files that do not come to an end."""
    guard = guard_patiently(orphans.storing(services.database))
    goes_on = threading.Event()
    stalled = threading.Semaphore(0)

    @contextmanager
    def stalling(digest):
        with guard(digest):
            stalled.release()
            goes_on.wait(30)
            yield

    store = open_storage(services.settings, guard=stalling)
    keys = []

    def put(n):
        keys.append(store.put(b"%d" % n, mime="image/webp"))

    held = make_run_claim()
    renewed = threading.Semaphore(0)

    def renew(session):
        run_attempts.renew(session, held, lease_s=30)
        renewed.release()

    threads = [threading.Thread(target=put, args=(n,)) for n in range(MOST_THREADS)]
    with ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(goes_on.set)
        for _ in range(6):
            assert stalled.acquire(timeout=5)
        with LeaseKeeper(services.database, held.row_id, renew, every_s=0.01):
            assert [renewed.acquire(timeout=5) for _ in range(3)] == [True] * 3
            row = HeldRow(services.database, held)
            assert row.tell(lambda session, on: run_attempts.report(session, on, log_tail=["x"]))
    assert len(keys) == MOST_THREADS
    assert services.database.locking.pool.checkedin() <= 3
    with services.database.transaction() as session:
        assert session.get_one(TaskRun, held.row_id).log_tail == ["x"]


def test_a_renewal_that_failed_is_tried_again_soon(services, make_run_claim):
    """Three renewals fit into a lease; one that met a restart must not cost a third of it."""
    held = make_run_claim()
    tried = threading.Semaphore(0)

    def renew(session):
        tried.release()
        session.execute(text("SELECT 1 / 0"))

    with LeaseKeeper(services.database, held.row_id, renew, every_s=5):
        assert tried.acquire(timeout=10)
        assert tried.acquire(timeout=3)
