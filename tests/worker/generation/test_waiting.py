"""A job that waits loses neither its attempts nor what ComfyUI has drawn."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from genonaut.clients.comfyui.client import BackendOptions, ComfyClient
from genonaut.db.models import ContentImage, GenerationJob
from genonaut.worker import generation
from tests.support.racing import Racing
from tests.support.simulator import free_port, running_simulator, wait_until
from tests.worker.generation.conftest import prompts_of


def test_a_download_that_breaks_off_is_repeated_later_without_drawing_again(
    services, quick_job, reload, sim
) -> None:
    sim.faults(view="truncated", count=1)
    job = quick_job()
    wait_until(lambda: generation.run(services, job.id, worker="w1"))
    assert reload(job).status == "completed"
    assert len(set(prompts_of(sim, job, services.database))) == 1


def test_no_comfyui_means_waiting_without_an_attempt(make_services, quick_job, reload, sim) -> None:
    services = make_services(comfyui_url=f"http://127.0.0.1:{free_port()}")
    job = quick_job()
    generation.run(services, job.id, worker="w1")
    waiting = reload(job)
    assert (waiting.status, waiting.attempt) == ("pending", 0)
    assert waiting.progress["phase"] == "waiting_for_backend"


def test_the_server_that_answers_is_chosen(make_services, quick_job, reload, sim) -> None:
    services = make_services(comfyui_url=f"http://127.0.0.1:{free_port()},{sim.url}")
    job = quick_job()
    generation.run(services, job.id, worker="w1")
    assert reload(job).status == "completed"
    assert reload(job).backend == sim.url


def test_pictures_wait_at_comfyui_for_room_and_are_not_drawn_again(
    make_services, quick_job, reload, sim
) -> None:
    full = make_services(storage_min_free_mb=10**9)
    job = quick_job()
    generation.run(full, job.id, worker="w1")
    waiting = reload(job)
    assert (waiting.status, waiting.attempt) == ("pending", 0)
    assert waiting.progress["phase"] == "waiting_for_storage"
    services = make_services()
    wait_until(lambda: generation.run(services, job.id, worker="w2"))
    assert reload(job).status == "completed"
    [prompt_id] = set(prompts_of(sim, job, services.database))
    assert sim.log()[prompt_id]["runs"] == 1


def test_pictures_that_wait_for_room_for_long_are_not_drawn_on_another_server(
    make_services, quick_job, reload, sim, wait_for_long
) -> None:
    job = quick_job()
    with running_simulator() as other:
        both = {"comfyui_url": f"{sim.url},{other.url}"}
        full = make_services(storage_min_free_mb=10**9, **both)
        for _ in range(5):  # of two idle servers one would be chosen by chance
            generation.run(full, job.id, worker="w1")
            assert reload(job).progress["phase"] == "waiting_for_storage"
            wait_for_long(job)
        services = make_services(**both)
        assert generation.run(services, job.id, worker="w2")
        runs = [
            server.log()[prompt_id]["runs"]
            for server in (sim, other)
            for prompt_id in set(prompts_of(server, job, services.database))
        ]
    assert runs == [1]


def test_a_server_that_stays_away_is_left_for_another(
    make_services, quick_job, reload, sim, wait_for_long
) -> None:
    job = quick_job()
    with running_simulator() as own:
        full = make_services(storage_min_free_mb=10**9, comfyui_url=own.url)
        generation.run(full, job.id, worker="w1")
        assert reload(job).backend == own.url
        own.stop()
        wait_for_long(job)
        services = make_services(comfyui_url=f"{own.url},{sim.url}")
        assert generation.run(services, job.id, worker="w2")
    assert reload(job).backend == sim.url


def test_a_decoder_that_cannot_start_costs_no_drawing(
    services, quick_job, reload, sim, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = quick_job()
    with monkeypatch.context() as patch:
        patch.setattr("genonaut.worker.rendering.sys.executable", "/nowhere/python")
        generation.run(services, job.id, worker="w1")
    waiting = reload(job)
    assert (waiting.status, waiting.attempt) == ("pending", 0)
    wait_until(lambda: generation.run(services, job.id, worker="w2"))
    [prompt_id] = set(prompts_of(sim, job, services.database))
    assert sim.log()[prompt_id]["runs"] == 1


def test_a_picture_whose_file_another_deleted_meanwhile_is_stored_again(
    services, quick_job, reload, sim, committed_database
) -> None:
    job = quick_job()
    store = Racing(services.storage, services.database)
    racing = replace(services, storage=store)
    assert generation.run(racing, job.id, worker="w") == []
    waiting = reload(job)
    assert (waiting.status, waiting.progress["phase"]) == ("pending", "waiting_for_storage")
    assert waiting.attempt == 0
    wait_until(lambda: generation.run(racing, job.id, worker="w"))
    with committed_database.transaction() as session:
        assert session.scalars(select(ContentImage.storage_key)).all() == store.removed
    assert all(map(services.storage.exists, store.removed))
    [prompt_id] = set(prompts_of(sim, job, committed_database))
    assert sim.log()[prompt_id]["runs"] == 1


def test_pictures_that_are_ready_are_collected_however_late(
    make_services, quick_job, reload, sim
) -> None:
    full = make_services(storage_min_free_mb=10**9)
    job = quick_job(max_attempts=1)
    generation.run(full, job.id, worker="w1")
    with full.database.transaction() as session:
        long_ago = func.now() - timedelta(hours=2)
        session.execute(update(GenerationJob).values(execution_started_at=long_ago))
    services = make_services()
    wait_until(lambda: generation.run(services, job.id, worker="w2"))
    assert reload(job).status == "completed"
    [prompt_id] = set(prompts_of(sim, job, services.database))
    assert sim.log()[prompt_id]["runs"] == 1


def test_what_comfyui_offers_now_is_no_matter_to_what_it_has_drawn(
    make_services, quick_job, reload, monkeypatch
) -> None:
    job = quick_job()
    generation.run(make_services(storage_min_free_mb=10**9), job.id, worker="w1")
    monkeypatch.setattr(ComfyClient, "options", lambda _: BackendOptions((), (), (), ()))
    wait_until(lambda: generation.run(make_services(), job.id, worker="w2"))
    assert reload(job).status == "completed"


def test_pictures_that_comfyui_lost_are_drawn_again(services, quick_job, reload, sim) -> None:
    sim.faults(view="404", count=1)
    job = quick_job()
    generation.run(services, job.id, worker="w1")
    assert reload(job).progress["phase"] == "waiting_to_retry"
    wait_until(lambda: generation.run(services, job.id, worker="w1"))
    assert reload(job).status == "completed"
    assert len(set(prompts_of(sim, job, services.database))) == 2


def test_a_prompt_in_a_queue_that_does_not_move_is_taken_back(
    make_services, quick_job, reload, sim
) -> None:
    sim.faults(freeze=True)
    services = make_services(task_soft_time_limit_s=1, task_time_limit_s=60)
    first, second = quick_job(), quick_job()
    generation.run(services, first.id, worker="w1")
    generation.run(services, second.id, worker="w1")
    assert reload(first).comfyui_prompt_id  # it is at work, as far as anybody can tell
    waiting = reload(second)
    assert (waiting.status, waiting.attempt, waiting.comfyui_prompt_id) == ("pending", 0, None)
    assert waiting.waiting_since is not None
    assert "time limit" in waiting.progress["reason"]
