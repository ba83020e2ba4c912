"""Claim jobs in this process, against the simulator."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from sqlalchemy import select, text

from genonaut.api.config import Settings
from genonaut.db.models import GenerationJob, JobAttempt
from genonaut.db.session import Database
from genonaut.domain.generation import NewJob
from genonaut.worker.services import Services
from tests.support.simulator import RunningSimulator, running_simulator

SEEDS = count(1)  # never the same graph twice: ComfyUI would answer from its cache


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator() as running:
        yield running


@pytest.fixture
def sim(simulator: RunningSimulator) -> Iterator[RunningSimulator]:
    yield simulator
    simulator.faults()


@pytest.fixture
def make_services(
    committed_database: Database, make_settings: Callable[..., Settings], sim: RunningSimulator
) -> Iterator[Callable[..., Services]]:
    made: list[Services] = []

    def make(**overrides: Any) -> Services:
        values = {
            "comfyui_url": sim.url,
            "comfyui_poll_interval_s": 0.1,
            "comfyui_connect_timeout_s": 1,
            "job_retry_backoff_s": 0.01,
            "storage_min_free_mb": 0,
            **overrides,
        }
        made.append(Services.connect(make_settings(**values)))
        return made[-1]

    yield make
    for services in made:
        services.renderer.close()
        services.database.close()
        services.events.close()


@pytest.fixture
def services(make_services: Callable[..., Services]) -> Services:
    return make_services()


@pytest.fixture
def quick_job(make_job: Callable[..., GenerationJob]) -> Callable[..., GenerationJob]:
    def make(
        prompt: str = "a lighthouse", *, max_attempts: int = 4, **fields: Any
    ) -> GenerationJob:
        sampler = {"steps": 3, "seed": next(SEEDS)}
        values: dict[str, Any] = {"width": 64, "height": 64, "sampler_params": sampler, **fields}
        return make_job(request=NewJob(prompt, **values), max_attempts=max_attempts)

    return make


@pytest.fixture
def wait_for_long(committed_database: Database) -> Callable[[GenerationJob], None]:
    """Make a job look as if it had waited for half a minute and more, and be due."""

    def make(job: GenerationJob) -> None:
        with committed_database.transaction() as session:
            session.execute(
                text(
                    "UPDATE generation_jobs SET available_at = now(),"
                    " waiting_since = now() - interval '31 seconds' WHERE id = :id"
                ),
                {"id": job.id},
            )

    return make


def outcomes(database: Database, job_id: int) -> list[str | None]:
    with database.transaction() as session:
        return list(
            session.scalars(
                select(JobAttempt.outcome)
                .where(JobAttempt.job_id == job_id)
                .order_by(JobAttempt.id)
            )
        )


def prompts_of(sim: RunningSimulator, job: GenerationJob, database: Database) -> list[str]:
    with database.transaction() as session:
        used = session.scalars(select(JobAttempt.prompt_id).where(JobAttempt.job_id == job.id))
        return [prompt_id for prompt_id in used if prompt_id in sim.log()]
