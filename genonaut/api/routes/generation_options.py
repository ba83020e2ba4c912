"""Say what may be asked for."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from genonaut.api import answers
from genonaut.api.answers import READING
from genonaut.api.deps import CallerDep, ServicesDep
from genonaut.api.requests import MAX_PROMPT

router = APIRouter(tags=["generation jobs"])


@router.get(
    "/generation-options",
    operation_id="readGenerationOptions",
    responses={200: {"model": answers.Options}, **READING},
)
def read(caller: CallerDep, services: ServicesDep) -> Response:
    """List checkpoints, LoRAs, samplers and schedulers every ComfyUI server has, and the limits."""
    with caller.transaction():
        pass  # only a login is asked for
    options = services.options.get()
    return JSONResponse(
        {
            "known": options is not None,
            "checkpoints": options.checkpoints if options else [],
            "loras": options.loras if options else [],
            "samplers": options.samplers if options else [],
            "schedulers": options.schedulers if options else [],
            "size": {"min": 64, "max": 2048, "multiple_of": 8},
            "batch_size_max": 8,
            "prompt_max": MAX_PROMPT,
        }
    )
