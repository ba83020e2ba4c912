"""A job becomes the graph that was asked for, also when its row is of before the merge."""

import pytest

from genonaut.domain import generation, graphs
from genonaut.domain.generation import NewJob


@pytest.mark.parametrize("odd", [[1], "word", 7, None])
def test_rows_of_before_the_merge_can_be_shown_drawn_and_repeated(database, make_job, odd):
    job = make_job(params={"sampler_params": odd}, status="cancelled")
    assert generation.public(job)["sampler_params"] == {}
    assert graphs.graph_for(job, "prefix", checkpoint="sd")
    with database.transaction() as session:
        again = generation.retry(session, job.user_id, job.id, max_attempts=4)
    assert again.params["sampler_params"]["seed"] >= 0


def test_loras_of_before_the_merge_are_drawn_with(make_job):
    odd = make_job(lora_models=["bare", {"name": "n", "strength_model": None}, {"odd": 1}, 7])
    assert [lora["name"] for lora in generation.public(odd)["lora_models"]] == ["bare", "n"]
    graph = graphs.graph_for(odd, "p", checkpoint="sd")
    loaded = [n["inputs"] for n in graph.values() if n["class_type"] == "LoraLoader"]
    assert [one["strength_model"] for one in loaded] == [1.0, 1.0]
    assert generation.public(make_job(lora_models={"odd": 1}))["lora_models"] == []


def test_the_graph_is_the_callers_own_or_made_from_the_request(make_job):
    request = NewJob("a fox", lora_models=({"name": "l.safetensors"},), batch_size=2, width=640)
    graph = graphs.graph_for(make_job(request=request), "p", checkpoint="sd")
    inputs = [node["inputs"] for node in graph.values()]
    assert any(one.get("batch_size") == 2 and one.get("width") == 640 for one in inputs)
    assert any(one.get("lora_name") == "l.safetensors" for one in inputs)
    assert any(one.get("ckpt_name") == "sd" for one in inputs)
    own = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "mine", "images": []}}}
    job = make_job(request=NewJob("x", workflow=own))
    prepared = graphs.graph_for(job, "genonaut/1", checkpoint="")
    assert prepared["9"]["inputs"]["filename_prefix"].startswith("genonaut/1")
