"""Check a form with the API's own models, and say what is wrong with which field."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class FormError(Exception):
    """A form is not right; ``errors`` says of each field what is wrong, ``""`` of the whole."""

    def __init__(self, errors: dict[str, str] | None = None) -> None:
        super().__init__("the form is not right")
        self.errors = errors or {}


def check(model: type[Model], values: dict[str, Any]) -> Model:
    """Make ``model`` of a form's values.

    Raises: FormError: naming the fields that are wrong, a field within one by its outermost.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise FormError(told(error)) from error


def whole(text: str) -> int | str:
    """Read a whole number; what is none stays as it is, for the model to refuse."""
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() else text


def told(error: ValidationError) -> dict[str, str]:
    """Say of each field what is wrong; a field within one is told of under its outermost."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_input=False):
        where = [str(part) for part in item["loc"]]
        words = item["msg"].removeprefix("Value error, ")
        within = f"{'.'.join(where[1:])}: " if len(where) > 1 else ""
        found.setdefault(where[0] if where else "", f"{within}{words[:1].lower()}{words[1:]}")
    return found
