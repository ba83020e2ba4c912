"""Make a form of a task's JSON Schema, and parameters of what was typed into it.

A parameter's field has the name the API gives it in errors: ``params.days``.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from genonaut.api.web.checking import FormError, whole
from genonaut.api.web.visitor import Form
from genonaut.core.errors import InvalidInputError

_NOT = {
    "whole": "is not a whole number",
    "wholes": "is not whole numbers with commas between them",
    "number": "is not a number",
    "json": "is not JSON",
}
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter. ``kind`` is check, choice, choices, whole, wholes, number, text or json."""

    name: str
    kind: str
    help: str
    default: Any
    options: tuple[str, ...] = ()
    required: bool = False
    may_be_empty: bool = False
    least: float | None = None
    most: float | None = None

    @property
    def key(self) -> str:
        """Its name in a form, and in what is said to be wrong."""
        return f"params.{self.name}"

    def typed(self, value: Any) -> list[str]:
        """Give a value as a form holds it."""
        if value is None or value is False:
            return []
        if self.kind == "choices":
            return [str(one) for one in value]
        if self.kind == "wholes":
            return [", ".join(str(one) for one in value)]
        return [json.dumps(value) if self.kind == "json" else str(value)]

    def read(self, form: Form) -> Any:
        """Give what was typed; None stands for nothing.

        Raises: ValueError: it is not of the kind.
        """
        text = form.get(self.key)
        if self.kind == "check":
            return bool(text)
        if self.kind == "choices":
            ticked = form.all(self.key)
            return ticked if ticked or self.default else None
        if not text:
            return None
        if self.kind == "whole":
            return _whole(text)
        if self.kind == "wholes":
            return [_whole(one) for one in re.split(r"[,;\s]+", text.strip(",; "))]
        if self.kind == "number":
            return _number(text)
        return _json(text) if self.kind == "json" else text


def fields(schema: dict[str, Any]) -> list[Field]:
    """Give a field for each parameter of an object's schema, in its order."""
    required = set(schema.get("required", ()))
    return [
        _field(name, part, schema.get("$defs", {}), required=name in required)
        for name, part in schema.get("properties", {}).items()
    ]


def read(wanted: list[Field], form: Form) -> dict[str, Any]:
    """Give the parameters; what was left empty is left out, so that its default holds.

    Raises: FormError: naming the fields that cannot be read.
    """
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for field in wanted:
        try:
            value = field.read(form)
        except ValueError:
            errors[field.key] = _NOT[field.kind]
            continue
        if value is not None or (field.may_be_empty and field.default is not None):
            found[field.name] = value
    if errors:
        raise FormError(errors)
    return found


def _whole(text: str) -> int:
    number = whole(text)
    if isinstance(number, str):
        raise ValueError("not a whole number")  # noqa: TRY004
    return number


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return float(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def form_of(wanted: list[Field], values: dict[str, Any]) -> dict[str, list[str]]:
    """Give the fields of a form that holds these parameters; for those not given, the defaults."""
    return {field.key: field.typed(values.get(field.name, field.default)) for field in wanted}


def wrong(error: InvalidInputError) -> dict[str, str]:
    """Say at which field to show an error: a parameter by its key, what is within it there too."""
    return {".".join((error.field or "").split(".")[:2]): str(error)}


def elsewhere(wanted: list[Field], errors: dict[str, str]) -> list[str]:
    """Give what is wrong, but with none of the parameters that have a field."""
    keys = {field.key for field in wanted}
    return [words for where, words in errors.items() if where not in keys]


def _field(name: str, part: dict[str, Any], shared: dict[str, Any], *, required: bool) -> Field:
    told = {"help": part.get("description", ""), "default": part.get("default")}
    some, may_be_empty = _without_null(part, shared)
    options = _options(some)
    kind = "json"
    if options:
        kind = "choice"
    elif some.get("type") == "array":
        items = _resolved(some.get("items", {}), shared)
        options = _options(items)
        kind = "choices" if options else "wholes" if items.get("type") == "integer" else "json"
    elif "type" in some:
        kinds = {"boolean": "check", "integer": "whole", "number": "number", "string": "text"}
        kind = kinds.get(some["type"], "json")
    if kind == "check" and may_be_empty:
        kind = "json"
    return Field(
        name,
        kind,
        options=options,
        required=required,
        may_be_empty=may_be_empty,
        least=some.get("minimum", some.get("exclusiveMinimum")),
        most=some.get("maximum"),
        **told,
    )


def _without_null(part: dict[str, Any], shared: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Give what a value may be beside null, and whether it may be null."""
    part = _resolved(part, shared)
    ways = [_resolved(way, shared) for way in part.get("anyOf", ())]
    if not ways:
        return part, False
    some = [way for way in ways if way.get("type") != "null"]
    return (some[0] if len(some) == 1 else {}), len(some) < len(ways)


def _resolved(part: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        found: dict[str, Any] = shared.get(part["$ref"].rsplit("/", 1)[-1], {})
        return found
    return part


def _options(part: dict[str, Any]) -> tuple[str, ...]:
    found = part.get("enum") or ([part["const"]] if "const" in part else [])
    return tuple(found) if all(isinstance(one, str) for one in found) else ()
