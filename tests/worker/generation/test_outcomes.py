"""One claim of a job, in this process, against the simulator: every way it can end."""

import threading
from datetime import timedelta
from io import BytesIO

import pytest
import redis
from PIL import Image
from sqlalchemy import func, select, update

from genonaut.core.events import Event
from genonaut.db.models import ContentImage, ContentItem, GenerationJob, UserNotification
from genonaut.domain import generation as jobs
from genonaut.domain import reaping
from genonaut.worker import generation
from tests.support.reaping import sweep
from tests.support.servers import free_port
from tests.support.simulator import text_to_image, wait_until
from tests.worker.generation.conftest import SEEDS, outcomes, prompts_of


def test_makes_clean_pictures_with_thumbnails_and_one_notice(services, quick_job, reload) -> None:
    told: list[Event] = []
    services.database.sinks.append(told.extend)
    job = quick_job("secret words", batch_size=2)
    images = generation.run(services, job.id, worker="w1")
    assert reload(job).status == "completed"
    with services.database.transaction() as session:
        rows = session.scalars(select(ContentImage).order_by(ContentImage.position)).all()
        [item] = session.scalars(select(ContentItem)).all()
        [notice] = session.scalars(select(UserNotification)).all()
    assert [row.id for row in rows] == images
    assert item.id == reload(job).content_id == notice.data["content_id"]
    assert notice.kind == "job_completed"
    for row in rows:
        data = services.storage.read(row.storage_key)
        assert b"secret words" not in data
        assert Image.open(BytesIO(data)).size == (64, 64) == (row.width, row.height)
        assert set(row.thumbnails) == {"256", "512"}
        for thumbnail in row.thumbnails.values():
            assert services.storage.exists(thumbnail["key"])
    assert rows[0].sha256 != rows[1].sha256
    versions = [event.version for event in told if event.kind == "job"]
    assert versions == sorted(set(versions))
    percents = [e.row["progress"].get("percent", 0) for e in told if e.kind == "job"]
    assert percents[-1] == 100
    assert all(percent < 100 for percent in percents[:-1])


def test_a_second_delivery_finds_nothing_to_claim(services, quick_job, sim) -> None:
    job = quick_job()
    assert generation.run(services, job.id, worker="w1")
    assert generation.run(services, job.id, worker="w2") == []
    assert generation.run(services, 10**9, worker="w1") == []
    assert len(prompts_of(sim, job, services.database)) == 1


def test_runs_a_workflow_of_the_caller_under_a_prefix_of_ours(services, quick_job, reload) -> None:
    job = quick_job(workflow=text_to_image(size=(128, 64), prefix="../../escape"))
    assert generation.run(services, job.id, worker="w1")
    with services.database.transaction() as session:
        [image] = session.scalars(select(ContentImage)).all()
    assert (image.width, image.height) == (128, 64)


@pytest.mark.parametrize("ws", ["refuse", "deaf", "garbage"])
def test_needs_no_socket(services, quick_job, reload, sim, ws: str) -> None:
    sim.faults(ws=ws)
    job = quick_job()
    generation.run(services, job.id, worker="w1")
    assert reload(job).status == "completed"


@pytest.mark.parametrize("view", ["corrupt", "empty"])
def test_fetches_a_damaged_picture_once_more(services, quick_job, reload, sim, view: str) -> None:
    sim.faults(view=view, count=1)
    job = quick_job()
    generation.run(services, job.id, worker="w1")
    assert reload(job).status == "completed"


def test_tries_again_when_the_picture_stays_damaged(services, quick_job, reload, sim) -> None:
    sim.faults(view="corrupt")
    job = quick_job()
    assert generation.run(services, job.id, worker="w1") == []
    assert reload(job).status == "pending"
    assert reload(job).progress["phase"] == "waiting_to_retry"
    assert outcomes(services.database, job.id) == ["retried"]


@pytest.mark.parametrize(
    "post", ["reset_after_accept", "500_after_accept", "reset", "503", "garbage"]
)
def test_an_unclear_answer_to_the_prompt_draws_once(
    services, quick_job, reload, sim, post: str
) -> None:
    sim.faults(prompt_post=post, count=1)
    job = quick_job()
    generation.run(services, job.id, worker="w1")
    assert reload(job).status == "completed"
    [prompt_id] = prompts_of(sim, job, services.database)
    assert sim.log()[prompt_id]["runs"] == 1


def test_a_failed_node_is_tried_again_and_then_explained(services, quick_job, reload, sim) -> None:
    sim.faults(
        node_error={"type": "RuntimeError", "message": "no kernel", "class_type": "KSampler"}
    )
    job = quick_job(max_attempts=2)
    generation.run(services, job.id, worker="w1")
    assert reload(job).status == "pending"
    wait_until(
        lambda: (
            generation.run(services, job.id, worker="w1") == [] and reload(job).status == "failed"
        )
    )
    ended = reload(job)
    assert ended.error_code == "execution_failed"
    assert "KSampler" in ended.error_message
    assert "no kernel" in ended.error_message
    assert outcomes(services.database, job.id) == ["retried", "failed"]
    with services.database.transaction() as session:
        [notice] = session.scalars(select(UserNotification)).all()
    assert notice.kind == "job_failed"


def test_out_of_memory_has_a_code_of_its_own(services, quick_job, reload, sim) -> None:
    sim.faults(oom=True)
    job = quick_job(max_attempts=1)
    generation.run(services, job.id, worker="w1")
    assert reload(job).error_code == "out_of_memory"


def test_a_refused_graph_fails_at_once_without_server_details(services, quick_job, reload) -> None:
    job = quick_job(checkpoint_model="nowhere.safetensors")
    generation.run(services, job.id, worker="w1")
    ended = reload(job)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "invalid_workflow", 1)
    assert "nowhere.safetensors" in ended.error_message
    assert "aurelia" not in ended.error_message  # the list of what the server has


def test_a_prompt_that_comfyui_forgets_is_posted_once_more(
    services, quick_job, reload, sim
) -> None:
    sim.faults(step_delay_s=0.5)
    job = quick_job()
    worker = threading.Thread(
        target=generation.run, args=(services, job.id), kwargs={"worker": "w1"}
    )
    worker.start()
    wait_until(lambda: reload(job).execution_started_at is not None)
    sim.faults(forget=True)
    worker.join(30)
    ended = reload(job)
    assert (ended.status, ended.attempt) == ("completed", 1)


def test_a_cancel_stops_the_prompt_and_nothing_else(services, quick_job, reload, sim) -> None:
    sim.faults(step_delay_s=0.5)
    job, other = quick_job("a"), quick_job("b")
    threads = [
        threading.Thread(target=generation.run, args=(services, row.id), kwargs={"worker": "w1"})
        for row in (job, other)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: reload(job).comfyui_prompt_id and reload(other).comfyui_prompt_id)
    with services.database.transaction() as session:
        jobs.request_cancel(session, job.user_id, job.id)
    for thread in threads:
        thread.join(30)
    assert reload(job).status == "cancelled"
    assert reload(other).status == "completed"
    assert outcomes(services.database, job.id) == ["cancelled"]


def test_what_ended_without_its_worker_leaves_no_prompt_behind(
    services, quick_job, reload, sim
) -> None:
    """Whoever closed the job may have told ComfyUI before this worker's prompt got there."""
    sim.faults(step_delay_s=0.5)
    job = quick_job(sampler_params={"steps": 20, "seed": next(SEEDS)})
    worker = threading.Thread(
        target=generation.run, args=(services, job.id), kwargs={"worker": "w1"}
    )
    worker.start()
    wait_until(lambda: sim.http.get("/queue").json()["queue_running"])
    with services.database.transaction() as session:
        jobs.request_cancel(session, job.user_id, job.id)
        session.execute(
            update(GenerationJob).values(lease_expires_at=func.now() - timedelta(minutes=1))
        )
    sweep(services.database, reaping.WORKER_LOST)
    worker.join(30)
    assert reload(job).status == "cancelled"
    wait_until(lambda: not sim.http.get("/queue").json()["queue_running"], 3)


def test_a_prompt_that_executes_too_long_is_stopped(make_services, quick_job, reload, sim) -> None:
    sim.faults(step_delay_s=2)
    services = make_services(comfyui_execution_timeout=1)
    job = quick_job(max_attempts=1)
    generation.run(services, job.id, worker="w1")
    ended = reload(job)
    assert (ended.status, ended.error_code) == ("failed", "timed_out")
    assert outcomes(services.database, job.id) == ["timed_out"]


def test_the_last_claim_only_collects(services, quick_job, reload, sim) -> None:
    job = quick_job(max_attempts=1)
    with services.database.transaction() as session:
        session.execute(
            update(GenerationJob)
            .where(GenerationJob.id == job.id)
            .values(attempt=1, collect_only=True, comfyui_prompt_id="gone", backend=sim.url)
        )
    generation.run(services, job.id, worker="w1")
    ended = reload(job)
    assert (ended.status, ended.error_code) == ("failed", "worker_lost")
    assert prompts_of(sim, job, services.database) == []


def test_a_last_claim_leaves_nothing_at_a_server_that_was_taken_out_of_use(
    make_services, quick_job, reload, sim, left_at_comfyui
) -> None:
    services = make_services()
    job = quick_job(max_attempts=1)
    away = f"http://127.0.0.1:{free_port()}"
    with services.database.transaction() as session:
        session.execute(
            update(GenerationJob)
            .where(GenerationJob.id == job.id)
            .values(attempt=1, collect_only=True, comfyui_prompt_id="drawn", backend=away)
        )
    generation.run(services, job.id, worker="w1")
    assert reload(job).error_code == "worker_lost"
    assert left_at_comfyui() == [(away, "drawn")]


def test_frames_go_out_only_while_somebody_watches(services, quick_job, sim) -> None:
    sim.faults(step_delay_s=0.4)
    job = quick_job(sampler_params={"steps": 8, "seed": 1})
    with redis.Redis.from_url(services.settings.redis_url) as client:
        heard = client.pubsub()
        heard.subscribe(f"{services.settings.redis_ns}:previews:job:{job.id}")
        worker = threading.Thread(
            target=generation.run, args=(services, job.id), kwargs={"worker": "w1"}
        )
        worker.start()
        frame = wait_until(
            lambda: (m := heard.get_message(timeout=0.1)) and m["type"] == "message" and m["data"],
            20,
        )
        worker.join(30)
        heard.close()
    assert Image.open(BytesIO(frame)).format == "JPEG"


def test_a_server_that_refuses_every_prompt_uses_the_attempts_up(
    services, quick_job, reload, sim
) -> None:
    sim.faults(prompt_post="500")
    job = quick_job(max_attempts=2)
    wait_until(
        lambda: not generation.run(services, job.id, worker="w1") and reload(job).status == "failed"
    )
    assert reload(job).error_code == "submission_failed"
    assert outcomes(services.database, job.id) == ["retried", "failed"]


def test_a_bug_is_told_in_the_row_and_raised(
    services, quick_job, reload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(generation, "output_images", broken)
    job = quick_job(max_attempts=1)
    with pytest.raises(ZeroDivisionError):
        generation.run(services, job.id, worker="w1")
    ended = reload(job)
    assert (ended.status, ended.error_code) == ("failed", "internal_error")
    assert "secret" not in ended.error_message


def test_a_bug_while_it_draws_leaves_no_prompt_behind(
    services, quick_job, reload, sim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def running() -> list[object]:
        found: list[object] = sim.http.get("/queue").json()["queue_running"]
        return found

    def broken(*_: object) -> None:
        wait_until(running)
        raise ZeroDivisionError

    sim.faults(step_delay_s=0.5)
    monkeypatch.setattr(generation.PromptWatch, "wait", broken)
    job = quick_job(sampler_params={"steps": 20, "seed": next(SEEDS)}, max_attempts=1)
    with pytest.raises(ZeroDivisionError):
        generation.run(services, job.id, worker="w1")
    wait_until(lambda: not running())
    [prompt_id] = prompts_of(sim, job, services.database)
    assert (
        sim.http.get(f"/history/{prompt_id}").json()[prompt_id]["status"]["status_str"] == "error"
    )


def test_says_that_it_draws_when_the_socket_says_nothing(services, quick_job, reload, sim) -> None:
    sim.faults(ws="refuse", step_delay_s=1.0)
    phases: set[str] = set()
    services.database.sinks.append(
        lambda events: phases.update(e.row["progress"]["phase"] for e in events if e.kind == "job")
    )
    job = quick_job(sampler_params={"steps": 6, "seed": next(SEEDS)})
    generation.run(services, job.id, worker="w1")
    assert reload(job).status == "completed"
    assert "drawing" in phases


def test_what_a_job_made_names_no_server(services, quick_job) -> None:
    generation.run(services, quick_job().id, worker="w1")
    with services.database.transaction() as session:
        [item] = session.scalars(select(ContentItem)).all()
    assert "127.0.0.1" not in str(item.item_metadata)


def test_a_workflow_may_make_only_so_many_pictures(services, quick_job, reload) -> None:
    graph = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 65, "color": 0},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    job = quick_job(workflow=graph)
    generation.run(services, job.id, worker="w1")
    assert reload(job).error_code == "too_many_pictures"
