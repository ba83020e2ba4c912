"""Read the form that asks for pictures, and fill it in again from a job."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from genonaut.api.requests import JobRequest
from genonaut.api.web.visitor import Form

SIZES = (
    ("512x512", "Square", 512, 512),
    ("768x512", "Landscape", 768, 512),
    ("512x768", "Portrait", 512, 768),
    ("1024x1024", "Large square", 1024, 1024),
    ("1216x832", "Large landscape", 1216, 832),
    ("832x1216", "Large portrait", 832, 1216),
)
OWN_SIZE = "own"
LORAS_MAX = 10

_PLAIN = ("prompt", "negative_prompt", "checkpoint_model", "size", "width", "height", "batch_size")
_SAMPLER = ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
_LORA = ("name", "strength_model", "strength_clip")
_BLANK_LORA = dict(zip(_LORA, ("", "1", "1"), strict=True))
_LORAS_SHOWN = 2
_GENERAL = "form"


@dataclass(frozen=True, slots=True)
class Filled:
    """What the form shows: every field's text, and what is wrong with which."""

    values: dict[str, str]
    loras: list[dict[str, str]]
    is_private: bool = False
    errors: dict[str, str] = field(default_factory=dict)
    blanks: int = 1

    @property
    def slots(self) -> list[dict[str, str]]:
        """Give the LoRAs, and at least ``blanks`` empty rows to add some."""
        empty = max(_LORAS_SHOWN - len(self.loras), self.blanks)
        return [*self.loras, *([_BLANK_LORA] * empty)][:LORAS_MAX]

    def wrong(self, *names: str) -> bool:
        """Whether something is wrong with any of these fields."""
        return any(name in self.errors for name in names)


def from_job(job: dict[str, Any] | None, *, whole: bool) -> Filled:
    """Fill the form with a job's settings, and if ``whole`` with its prompt and seed too."""
    if job is None:
        job = {"width": 512, "height": 512, "batch_size": 1, "sampler_params": {}}
    given = {**job, **job["sampler_params"]}
    if not whole:
        given |= {"prompt": "", "seed": ""}
    values = {name: _text(given.get(name)) for name in _PLAIN + _SAMPLER}
    size = f"{values['width']}x{values['height']}"
    values["size"] = size if size in {name for name, *_ in SIZES} else OWN_SIZE
    loras = [
        {name: _text(lora.get(name)) for name in _LORA} for lora in job.get("lora_models") or []
    ]
    return Filled(values, loras, bool(job.get("is_private")))


def from_form(form: Form) -> Filled:
    """Take what was typed; a size that was picked goes before one that was written.

    Who asked for another LoRA gets an empty row more than the form had.
    """
    values = {name: form.get(name).replace("\r\n", "\n") for name in _PLAIN + _SAMPLER}
    for name, _, width, height in SIZES:
        if values["size"] == name:
            values |= {"width": str(width), "height": str(height)}
    columns = [form.all(f"lora_{name}") for name in _LORA]
    rows = [dict(zip(_LORA, row, strict=True)) for row in zip(*columns, strict=False)]
    loras = [row for row in rows if row["name"].strip()]
    blanks = len(rows) - len(loras) + 1 if form.has("another_lora") else 1
    return Filled(values, loras, form.has("is_private"), blanks=blanks)


def request_of(filled: Filled) -> JobRequest:
    """Give what is asked of the API; blank fields are left out.

    Raises: ValidationError: a value does not fit.
    """
    given = {name: text for name, text in filled.values.items() if text}
    asked: dict[str, Any] = {
        "prompt": filled.values["prompt"],
        "is_private": filled.is_private,
        "sampler_params": {name: _number(name, given[name]) for name in _SAMPLER if name in given},
        "lora_models": [
            {name: _number(name, lora[name].strip() or "1") for name in _LORA}
            for lora in filled.loras
        ],
    }
    for name in _PLAIN:
        if name in given and name not in {"prompt", "size"}:
            asked[name] = _number(name, given[name])
    return JobRequest.model_validate(asked)


def wrongs(error: ValidationError) -> dict[str, str]:
    """Say what is wrong, by the field of the form."""
    told: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        told.setdefault(_place([str(part) for part in item["loc"]]), _say(item["msg"]))
    return told


def wrong_field(named: str | None, message: str) -> dict[str, str]:
    """Say what the API refused, at its field if the form has it."""
    place = _place(named.split(".")) if named else _GENERAL
    return {place: _say(message.removeprefix(f"{named}: ").split("; see GET")[0])}


def _place(path: list[str]) -> str:
    name = path[1] if path[0] == "sampler_params" and len(path) > 1 else path[0]
    return name if name in {*_PLAIN, *_SAMPLER, "lora_models"} else _GENERAL


def _say(message: str) -> str:
    if message == "String should have at least 1 character":
        message = "must not be blank"
    text = message.removeprefix("Value error, ").replace("Input should", "Should")
    return f"{text[:1].upper()}{text[1:]}.".replace("..", ".")


_WHOLE = {"width", "height", "batch_size", "seed", "steps"}
_REAL = {"cfg", "denoise", "strength_model", "strength_clip"}


def _number(name: str, text: str) -> int | float | str:
    """Read a number where one is due; what is none is left for the check to refuse."""
    kind = int if name in _WHOLE else float if name in _REAL else str
    try:
        return kind(text)
    except ValueError:
        return text


def _text(value: object) -> str:
    # All of its digits: the same seed with others draws another picture.
    text = "" if value is None else str(value)
    return text.removesuffix(".0") if isinstance(value, float) else text
