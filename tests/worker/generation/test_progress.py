"""A job shows its own drawing, also while ComfyUI is quiet; only a deaf socket is hung up."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
from websockets.sync.client import connect

from genonaut.clients.comfyui import Listener
from genonaut.db.models import GenerationJob
from genonaut.worker import generation, watch
from genonaut.worker.services import Services
from tests.support.simulator import text_to_image, wait_until
from tests.worker.generation.conftest import SEEDS


@pytest.fixture
def dials(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Note each socket that is opened, the limit of deafness being shorter than a step."""
    dialled: list[None] = []
    dial = Listener._dial

    def noted(listener: Listener) -> Any:
        dialled.append(None)
        return dial(listener)

    monkeypatch.setattr(Listener, "_dial", noted)
    monkeypatch.setattr(watch, "DEAF_AFTER_S", 0.4)
    return dialled


@pytest.fixture
def shown(services: Services) -> list[dict[str, Any]]:
    """Note each progress of a job that is told."""
    progress: list[dict[str, Any]] = []
    services.database.sinks.append(
        lambda events: progress.extend(e.row["progress"] for e in events if e.kind == "job")
    )
    return progress


@pytest.fixture
def draw(
    services: Services, quick_job: Callable[..., GenerationJob]
) -> Callable[[int], threading.Thread]:
    def start(steps: int) -> threading.Thread:
        job = quick_job(sampler_params={"steps": steps, "seed": next(SEEDS)})
        thread = threading.Thread(
            target=generation.run, args=(services, job.id), kwargs={"worker": "w1"}
        )
        thread.start()
        return thread

    return start


def percents(shown: list[dict[str, Any]]) -> list[int]:
    return [told["percent"] for told in shown if "percent" in told]


def test_a_quiet_server_costs_neither_the_progress_nor_the_socket(sim, draw, dials, shown) -> None:
    sim.faults(step_delay_s=0.9)
    draw(3).join(30)
    drawing = [told for told in shown if told["phase"] == "drawing"]
    first = next(place for place, told in enumerate(drawing) if "percent" in told)
    told = [told.get("percent") for told in drawing[first:]]
    assert None not in told
    assert told == sorted(told)
    assert {33, 67} <= set(told)
    assert len(dials) == 1


def test_a_socket_that_missed_the_start_is_opened_anew_once(sim, draw, dials, shown) -> None:
    sim.faults(ws="deaf", step_delay_s=0.7)
    drawing = draw(4)
    wait_until(lambda: len(dials) == 2)
    assert not percents(shown)
    sim.faults(step_delay_s=0.7)
    drawing.join(30)
    assert len(dials) == 2
    assert any(0 < percent < 100 for percent in percents(shown))


def test_a_socket_that_comfyui_forgets_meanwhile_is_opened_anew(
    sim, draw, dials, shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENT_S", 1.0)
    sim.faults(step_delay_s=0.3)
    drawing = draw(20)
    wait_until(lambda: any(percents(shown)))
    [[_, _, _, extra, _]] = sim.http.get("/queue").json()["queue_running"]
    with connect(f"ws://127.0.0.1:{sim.port}/ws?clientId={extra['client_id']}", proxy=None):
        pass  # with this one's end ComfyUI forgets the other, too: recorded
    wait_until(lambda: len(dials) == 2)
    known = max(percents(shown))
    wait_until(lambda: known < max(percents(shown)) < 100)
    sim.faults(step_delay_s=0.02)
    drawing.join(30)
    assert len(dials) == 2


def test_a_stranger_s_preview_is_not_shown_as_that_of_the_job_behind_it(
    services, sim, draw
) -> None:
    sim.faults(step_delay_s=0.2)
    stranger = {"prompt": text_to_image(seed=next(SEEDS), steps=6), "prompt_id": "stranger"}
    sim.http.post("/prompt", json=stranger).raise_for_status()  # no client_id: all get its frames
    with redis.Redis.from_url(services.settings.redis_url) as client:
        heard = client.pubsub()
        heard.psubscribe(f"{services.settings.redis_ns}:previews:job:*")
        drawing = draw(3)
        while not sim.log()["stranger"]["ended"]:
            frame = heard.get_message(ignore_subscribe_messages=True, timeout=0.05)
            assert frame is None
        wait_until(lambda: heard.get_message(ignore_subscribe_messages=True, timeout=0.1))
        drawing.join(30)
        heard.close()
