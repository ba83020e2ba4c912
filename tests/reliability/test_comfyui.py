"""ComfyUI down, forgetful, silent after it accepted, and told to stop."""

import time

import pytest

from tests.reliability.program import holds, until
from tests.reliability.rig import Rig

SECONDS = 10.0
"""What "within seconds" means here; ComfyUI's own longest wait is minutes."""


@pytest.mark.parametrize(
    "how",
    [
        "refused",
        pytest.param("500", marks=pytest.mark.slow),
        pytest.param("hang", marks=pytest.mark.slow),
    ],
)
def test_f29_a_job_waits_for_comfyui_and_no_attempt_is_burnt(rig: Rig, how: str) -> None:
    if how == "refused":
        rig.comfy.stop()
    else:
        rig.comfy.faults(all_http=how)
    rig.worker()
    job_id = rig.submit()
    job = rig.wait_for_phase(job_id, "waiting_for_backend")
    assert "ComfyUI" in job.progress["reason"]
    again = job.version + 3
    until(lambda: rig.job(job_id).version > again, "it looks again and again")
    assert rig.job(job_id).attempt <= 1
    assert rig.notices(job_id) == []
    if how == "refused":
        rig.comfy.start()
    else:
        rig.comfy.faults()
    job = rig.wait_for(job_id, "completed", 40)
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["waiting", "completed"]
    assert "does not count" in rig.timeline(job_id)
    assert rig.comfy.runs() == 1


@pytest.mark.slow
def test_f29_an_outage_while_drawing_is_waited_out(rig: Rig) -> None:
    rig.worker()
    job_id = rig.submit(steps=80)
    rig.wait_until_drawing(job_id)
    rig.comfy.faults(all_http="500")
    job = rig.wait_for_phase(job_id, "waiting_for_backend")
    assert job.progress["reason"]
    rig.comfy.faults()
    assert rig.wait_for(job_id, "completed").attempt == 1
    assert rig.outcomes(job_id) == ["completed"]
    assert rig.comfy.runs() == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["forget", "restart"])
def test_f30_a_comfyui_that_forgot_the_prompt_gets_it_once_more(rig: Rig, how: str) -> None:
    rig.worker()
    job_id = rig.submit(steps=60)
    lost = rig.wait_until_drawing(job_id).comfyui_prompt_id
    forgot_at = time.monotonic()
    if how == "forget":
        rig.comfy.faults(forget=True)
    else:
        rig.comfy.stop()
        rig.comfy.start()
    until(lambda: rig.job(job_id).comfyui_prompt_id not in {lost, None}, "a new prompt", SECONDS)
    rig.measure(f"F30, {how} to the new prompt", forgot_at)
    job = rig.wait_for(job_id, "completed")
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["completed"]
    new = [p for p in rig.comfy.prompts() if p["prompt_id"] != lost]
    assert [(p["received"], p["sampled"]) for p in new] == [(1, 1)]


@pytest.mark.parametrize(
    "how",
    [
        "reset_after_accept",
        pytest.param("500_after_accept", marks=pytest.mark.slow),
        pytest.param("hang_after_accept", marks=pytest.mark.slow),
    ],
)
def test_f31_a_lost_answer_to_the_prompt_does_not_draw_it_twice(rig: Rig, how: str) -> None:
    worker = rig.worker()
    rig.comfy.faults(prompt_post=how, count=1)
    job_id = rig.submit(steps=10)
    job = rig.wait_for(job_id, "completed")
    assert "submission_unclear" in worker.log
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["completed"]
    assert [(p["received"], p["sampled"]) for p in rig.comfy.prompts()] == [(1, 1)]


@pytest.mark.slow
def test_f32_what_was_drawn_while_no_worker_lived_is_collected(rig: Rig) -> None:
    worker = rig.worker()
    job_id = rig.submit(steps=40)
    prompt_id = rig.wait_until_drawing(job_id).comfyui_prompt_id
    worker.kill9()
    until(lambda: not rig.comfy.busy(), "the picture is finished")
    rig.worker("second")
    job = rig.wait_for(job_id, "completed", 60)
    assert job.comfyui_prompt_id == prompt_id
    assert rig.outcomes(job_id) == ["worker_lost", "completed"]
    assert [(p["received"], p["sampled"]) for p in rig.comfy.prompts()] == [(1, 1)]


def test_f33_cancelling_stops_one_job_and_harms_no_other(rig: Rig) -> None:
    rig.worker(slots=3, wait=False)
    rig.api()
    running = rig.submit(steps=150)
    rig.wait_until_drawing(running)
    queued, other = rig.submit(steps=150), rig.submit(steps=10)
    for job_id in (queued, other):
        rig.wait_for_phase(job_id, "queued_at_backend")
    rig.cancel(queued)
    rig.wait_for(queued, "cancelled")
    assert rig.job(running).status == "running"
    rig.cancel(running)
    rig.wait_for(running, "cancelled")
    rig.wait_for(other, "completed")
    ended = {p["prompt_id"]: p["ended"] for p in rig.comfy.prompts()}
    assert ended == {
        rig.job(running).comfyui_prompt_id: ["interrupted"],
        rig.job(queued).comfyui_prompt_id: ["deleted"],
        rig.job(other).comfyui_prompt_id: ["success"],
    }
    assert rig.outcomes(running) == rig.outcomes(queued) == ["cancelled"]


def test_f33_a_cancel_before_any_worker_has_the_job_is_immediate(rig: Rig) -> None:
    rig.api()
    job_id = rig.submit()
    rig.cancel(job_id)
    assert rig.job(job_id).status == "cancelled"
    assert rig.outcomes(job_id) == []


@pytest.mark.slow
def test_f33_a_cancel_while_the_job_finishes_wins_or_loses_cleanly(rig: Rig) -> None:
    rig.worker(slots=4, wait=False)
    rig.api()
    rig.comfy.faults(history_delay_s=0.3, step_delay_s=0)
    with rig.hear_jobs() as heard:
        for delay_s in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8):
            job_id = rig.submit()
            rig.wait_until_claimed(job_id)
            time.sleep(delay_s)
            accepted = rig.try_cancel(job_id)
            expected = "cancelled" if accepted else "completed"
            rig.wait_for(job_id, expected)
            assert rig.notices(job_id) == [f"job_{expected}"]
        until(lambda: len(heard.finals()) == 8, "every end was told")
    ends = heard.finals()
    assert all(len(told) == 1 for told in ends.values()), ends
    assert {job.id: [job.status] for job in rig.jobs()} == ends


def test_f34_a_job_cancelled_while_no_worker_lives_never_runs(rig: Rig) -> None:
    worker = rig.worker(wait=False)
    rig.api()
    left = rig.submit(steps=150)
    prompt_id = rig.wait_until_drawing(left).comfyui_prompt_id
    worker.kill9()
    waiting = rig.submit()
    until(lambda: rig.waiting_messages() == 1, "its message is in the queue")
    rig.cancel(waiting)
    rig.cancel(left)
    assert rig.job(waiting).status == "cancelled"
    second = rig.worker("second")
    rig.wait_for(left, "cancelled")
    second.wait_for_log(f"not_claimed +job_id={waiting}")
    until(lambda: not rig.comfy.busy(), "the abandoned prompt is stopped")
    assert rig.outcomes(left) == ["worker_lost"]
    assert rig.outcomes(waiting) == []
    assert [p["prompt_id"] for p in rig.comfy.prompts()] == [prompt_id]


@pytest.mark.slow
def test_f46_a_job_that_succeeds_in_the_end_is_told_of_once(rig: Rig) -> None:
    rig.worker()
    rig.comfy.faults(node_error={"message": "bad luck"}, count=3)
    job_id = rig.submit()
    job = rig.wait_for(job_id, "completed", 60)
    assert job.attempt == 4
    assert job.error_code is None
    assert rig.outcomes(job_id) == ["retried"] * 3 + ["completed"]
    assert "bad luck" in rig.timeline(job_id)
    assert rig.notices(job_id) == ["job_completed"]


@pytest.mark.slow
def test_f46_a_worker_that_dies_after_its_commit_has_told_the_user(rig: Rig) -> None:
    rig.worker(hook="die_after_commit")
    job_id = rig.submit()
    job = rig.wait_for(job_id, "completed")
    holds(lambda: rig.job(job_id).version == job.version, "nothing moves it again", 6)
    assert rig.outcomes(job_id) == ["completed"]
    assert rig.notices(job_id) == ["job_completed"]
    assert rig.comfy.runs() == 1
