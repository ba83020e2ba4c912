"""Check a form with the API's own models, and say what is wrong with which field."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

# Far more digits than any field takes, and few enough for int() to read them at once.
_WHOLE = re.compile(r"-?[0-9]{1,40}")


class FormError(Exception):
    """A form is not right; ``errors`` says of each field what is wrong, ``""`` of the whole.

    As text it tells of the first, for a form that is not shown again.
    """

    def __init__(self, errors: dict[str, str] | None = None) -> None:
        self.errors = errors or {}
        field, words = next(iter(self.errors.items()), ("", "the form is not right"))
        super().__init__(f"{field}: {words}" if field else words)


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
    return int(text) if _WHOLE.fullmatch(text) else text


def moment(text: str) -> str | None:
    """Read a date and a time, as UTC where no zone is said; what is none is the model's to refuse.

    A browser gives minutes and no zone; the pages say that UTC is meant.
    """
    with suppress(ValueError):
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
    return text or None


def told(error: ValidationError) -> dict[str, str]:
    """Say of each field what is wrong; a field within one is told of under its outermost."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_input=False):
        where = [str(part) for part in item["loc"]]
        words = item["msg"].removeprefix("Value error, ")
        within = f"{'.'.join(where[1:])}: " if len(where) > 1 else ""
        found.setdefault(where[0] if where else "", f"{within}{words[:1].lower()}{words[1:]}")
    return found
