"""Turn a job into the graph that ComfyUI is to run."""

from typing import Any

from genonaut.core import workflow
from genonaut.db.models import GenerationJob


def sampler_params(params: dict[str, Any]) -> dict[str, Any]:
    """Give the sampler's part of a job's parameters; rows of before the merge may hold anything."""
    given = params.get("sampler_params")
    return dict(given) if isinstance(given, dict) else {}


def loras(given: Any) -> list[dict[str, Any]]:
    """Give the named LoRAs of a job; rows of before the merge may list bare names."""
    listed = given if isinstance(given, list) else []
    named = [{"name": lora} if isinstance(lora, str) else lora for lora in listed]
    return [lora for lora in named if isinstance(lora, dict) and lora.get("name")]


def _strength(lora: dict[str, Any], of: str) -> float:
    value = lora.get(f"strength_{of}")
    return 1.0 if value is None else value


SAMPLER_DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "steps": 20,
    "cfg": 7.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "denoise": 1.0,
}


def graph_for(job: GenerationJob, filename_prefix: str, *, checkpoint: str) -> dict[str, Any]:
    """Build the graph ComfyUI is to run: the caller's own, or text-to-image from the request."""
    if "workflow" in job.params:
        return workflow.prepare(job.params["workflow"], filename_prefix)
    given = sampler_params(job.params)
    sampler = {
        name: default if given.get(name) is None else given[name]
        for name, default in SAMPLER_DEFAULTS.items()
    }
    chained = tuple(
        workflow.Lora(lora["name"], *(_strength(lora, of) for of in ("model", "clip")))
        for lora in loras(job.lora_models)
    )
    return workflow.build_text_to_image(
        workflow.TextToImage(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt or "",
            checkpoint=checkpoint,
            loras=chained,
            width=job.width or 512,
            height=job.height or 512,
            batch_size=job.batch_size,
            **sampler,
        ),
        filename_prefix,
    )
