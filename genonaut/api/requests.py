"""Say what bodies may hold; what does not fit is a 422 that names the field."""

import json
import math
import re
import unicodedata
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from genonaut.core import workflow
from genonaut.core.errors import InvalidInputError
from genonaut.domain.generation import MAX_SEED, NewJob
from genonaut.domain.runs import MAX_REASON

MAX_PROMPT = 20_000
MAX_WORKFLOW_BYTES = 1_048_576
MAX_DEPTH = 32

_BLANK = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe0e\ufe0f\uffa0")
"""Characters nobody sees though they count as letters, marks or symbols."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PATH_TRICKS = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")


def iso_day(value: object) -> object:
    """Refuse what is not written as a day; a bare number would be seconds since 1970.

    Raises: ValueError: it is not written year-month-day.
    """
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError("must be a day, as 2026-03-28")
    return value


Day = Annotated[date, BeforeValidator(iso_day)]


def storable(value: str) -> str:
    """Refuse what PostgreSQL does not take.

    Raises: ValueError: NUL, or half a character.
    """
    if "\0" in value:
        raise ValueError("must not contain NUL characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("must not contain half of a surrogate pair") from error
    return value


def _check_storable(value: Any, *, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"must not be nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        storable(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must not contain numbers that are not finite")
    elif isinstance(value, dict):
        for name, item in value.items():
            storable(name)
            _check_storable(item, depth=depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_storable(item, depth=depth - 1)


def _not_blank(value: str) -> str:
    if not any(unicodedata.category(char) not in _BLANK and char not in _UNSEEN for char in value):
        raise ValueError("must not be blank")
    return value


def _model_name(value: str) -> str:
    storable(value)
    if not value.strip() or any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError("must not be blank or contain control characters")
    if _PATH_TRICKS.search(value):
        raise ValueError("must be a name, not a path that leaves the models folder")
    return value


ModelName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_model_name)]
OptionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")]
Side = Annotated[int, Field(ge=64, le=2048, multiple_of=8)]
Strength = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]


class Body(BaseModel):
    """Refuse fields nobody asked for, and values that are only nearly of the right type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LoraRequest(Body):
    """A LoRA, and how strongly it bends the model and the text encoder."""

    name: ModelName = Field(description="As `GET /generation-options` lists it.")
    strength_model: Strength = Field(default=1.0, description="Weight on the image model.")
    strength_clip: Strength = Field(default=1.0, description="Weight on the text encoder.")


class SamplerRequest(Body):
    """How the picture is sampled; what is left out takes the usual value."""

    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="Left out: one is chosen and kept."
    )
    steps: int | None = Field(default=None, ge=1, le=150, description="Sampling steps.")
    cfg: float | None = Field(
        default=None, ge=0, le=30, allow_inf_nan=False, description="Weight of the prompt."
    )
    sampler_name: OptionName | None = Field(default=None, description="Such as `euler`.")
    scheduler: OptionName | None = Field(default=None, description="Such as `normal`.")
    denoise: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False, description="1 draws from noise alone."
    )


class JobRequest(Body):
    """A request for pictures: a prompt with settings, or with a ComfyUI workflow of one's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "prompt": "a lighthouse in a storm, oil painting",
                "negative_prompt": "blurry",
                "width": 768,
                "height": 512,
                "batch_size": 2,
                "sampler_params": {"steps": 24, "cfg": 6.5, "sampler_name": "euler"},
            }
        },
    )

    prompt: Annotated[
        str,
        Field(min_length=1, max_length=MAX_PROMPT),
        AfterValidator(storable),
        AfterValidator(_not_blank),
    ]
    negative_prompt: (
        Annotated[str, Field(max_length=MAX_PROMPT), AfterValidator(storable)] | None
    ) = None
    checkpoint_model: ModelName | None = Field(
        default=None, description="Left out: the first the server has."
    )
    lora_models: list[LoraRequest] = Field(default=[], max_length=10)
    width: Side = Field(default=512, description="Pixels, a multiple of 8.")
    height: Side = Field(default=512, description="Pixels, a multiple of 8.")
    batch_size: int = Field(default=1, ge=1, le=8, description="Pictures to make.")
    sampler_params: SamplerRequest = SamplerRequest()
    workflow: dict[str, Any] | None = Field(
        default=None,
        description="A graph in ComfyUI's API format; it replaces the settings above.",
    )
    is_private: bool = Field(default=False, description="Whether only you may see the result.")

    @field_validator("workflow")
    @classmethod
    def _is_a_graph(cls, graph: dict[str, Any] | None) -> dict[str, Any] | None:
        if graph is None:
            return None
        try:
            workflow.check_shape(graph)
        except InvalidInputError as error:
            raise ValueError(str(error)) from error
        if len(json.dumps(graph)) > MAX_WORKFLOW_BYTES:
            raise ValueError(f"the workflow is larger than {MAX_WORKFLOW_BYTES // 1024} KiB")
        return graph

    def to_job(self) -> NewJob:
        """Give the request to the domain."""
        return NewJob(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            checkpoint_model=self.checkpoint_model,
            lora_models=tuple(lora.model_dump() for lora in self.lora_models),
            width=self.width,
            height=self.height,
            batch_size=self.batch_size,
            sampler_params=self.sampler_params.model_dump(exclude_none=True),
            workflow=self.workflow,
            is_private=self.is_private,
        )


def _params(params: dict[str, Any]) -> dict[str, Any]:
    _check_storable(params, depth=MAX_DEPTH)
    return params


ParamsField = Annotated[dict[str, Any], AfterValidator(_params)]
ReasonField = Annotated[str, Field(max_length=MAX_REASON), AfterValidator(storable)]


class RunRequest(Body):
    """Ask for a run of a task."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"params": {"days": 7}, "reason": "after the import"}}
    )

    params: ParamsField = Field(
        default={}, description="As `params_schema` of the task says; what is left out is default."
    )
    dry_run: bool = Field(
        default=False, description="Say what would be done, and do nothing; if the task can."
    )
    reason: ReasonField | None = Field(
        default=None, description="Why; shown with the run and in the audit log."
    )


class LoginRequest(Body):
    """Exchange an API token for a session cookie."""

    model_config = ConfigDict(json_schema_extra={"example": {"token": "gn_…"}})

    token: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(storable)]


class WebhookBody(BaseModel):
    """What the sender beside ComfyUI says; other fields are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"example": {"prompt_id": "0b0e3c52-6a4e-4f0b-9a53-1c8f0f5f7a11"}},
    )

    prompt_id: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(storable)]
