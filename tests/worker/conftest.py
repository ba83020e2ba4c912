"""Run tasks in this process, without Redis."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from genonaut.api.config import Settings
from genonaut.core.events import Event
from genonaut.db.models import TaskRun
from genonaut.db.session import Database
from genonaut.domain import runs
from genonaut.domain.runs import Trigger
from genonaut.worker import run, task
from genonaut.worker.services import Services
from genonaut.worker.task import TaskDefinition


@pytest.fixture
def task_settings() -> dict[str, Any]:
    """Give settings of a test's own; parametrize it."""
    return {}


@pytest.fixture
def task_services(
    database: Database,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    task_settings: dict[str, Any],
) -> Iterator[Services]:
    values = {"storage_min_free_mb": 0, "job_retry_backoff_s": 0.01, **task_settings}
    made = Services.connect(make_settings(**values))
    made.database.close()
    services = Services(made.settings, database, made.events, made.storage)
    monkeypatch.setattr(run, "ROW_EVERY_S", 0)
    yield services
    services.renderer.close()
    services.events.close()


@pytest.fixture
def start_run(
    task_services: Services,
) -> Callable[..., TaskRun]:
    """Store a run of a task as the API would, and work on it once; give the row."""

    def start(
        definition: TaskDefinition[Any, Any], *, dry_run: bool = False, **params: Any
    ) -> TaskRun:
        checked = definition.validate(params)
        request = definition.request(checked, trigger=Trigger.API, dry_run=dry_run)
        with task_services.database.transaction() as session:
            made = runs.trigger(session, request).run
        return work_on(task_services, definition, made.id)

    return start


def work_on(services: Services, definition: TaskDefinition[Any, Any], run_id: int) -> TaskRun:
    """Deliver a run once, as Celery would; give the row."""
    run.run(services, definition, run_id, worker="worker-1")
    with services.database.transaction() as session:
        return session.get_one(TaskRun, run_id)


@pytest.fixture
def run_task(
    task_services: Services, start_run: Callable[..., TaskRun]
) -> Callable[..., tuple[Any, list[tuple[int, int | None]]]]:
    """Run a task to its end; give its result and the progress it showed, which never goes back."""

    def go(
        definition: TaskDefinition[Any, Any], *, dry_run: bool = False, **params: Any
    ) -> tuple[Any, list[tuple[int, int | None]]]:
        seen: list[Event] = []
        task_services.database.sinks.append(seen.extend)
        try:
            row = start_run(definition, dry_run=dry_run, **params)
        finally:
            task_services.database.sinks.remove(seen.extend)
        assert row.status == "completed", f"{row.error_code}: {row.error_message}"
        own = [event for event in seen if (event.kind, event.id) == ("run", row.id)]
        shown = [event.row["progress"] for event in own]
        percents = [progress["percent"] for progress in shown if "percent" in progress]
        assert percents == sorted(percents)
        steps = [(p["done"], p.get("total")) for p in shown if p.get("phase") == "running"]
        return definition.result.model_validate(row.result), list(dict.fromkeys(steps))

    return go


@pytest.fixture
def declare() -> Iterator[Callable[..., TaskDefinition[Any, Any]]]:
    """Declare a task that is forgotten after the test."""
    names: list[str] = []

    def make(work: Any, name: str = "toys.one", **options: Any) -> TaskDefinition[Any, Any]:
        definition = task.task(name, **{"title": "A toy", **options})(work)
        names.append(name)
        return definition

    yield make
    for name in names:
        task.forget(name)
