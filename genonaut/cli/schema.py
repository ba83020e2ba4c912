"""Read words as the values a JSON Schema asks for, and say in words what it asks for."""

import json
from typing import Any, NoReturn

Schema = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def value(word: str, schema: Schema, root: Schema) -> Any:
    """Read a word: as JSON where that is of a type ``schema`` takes, else as the text it is.

    Only types are looked at; what else is wrong the API says better. ``root`` holds ``$defs``.
    """
    try:
        found = json.loads(word, parse_constant=refuse)
    except (ValueError, RecursionError):
        return word
    return found if _takes(schema, found, root) else word


def refuse(name: str) -> NoReturn:
    """Refuse what Python reads as a number and JSON does not have; for ``parse_constant``.

    Raises: ValueError: always.
    """
    raise ValueError(f"{name} is not JSON")


def _resolved(schema: Schema, root: Schema) -> Schema:
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    found: Schema = root.get("$defs", {}).get(name, {}) if name else schema
    return found


def _takes(schema: Schema, found: Any, root: Schema) -> bool:
    schema = _resolved(schema, root)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return any(_takes(one, found, root) for one in schema[several])
    if "enum" in schema or "const" in schema:
        return found in schema.get("enum", [schema.get("const")])
    if "type" not in schema:
        return True
    if isinstance(found, bool):
        return bool(schema["type"] == "boolean")
    return isinstance(found, _TYPES.get(schema["type"], ()))


def described(schema: Schema, root: Schema) -> str:
    """Say what a schema takes: ``integer or null``, ``"a" or "b"``, ``array of integer``."""
    schema = _resolved(schema, root)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(described(one, root) for one in schema[several])
    if "enum" in schema or "const" in schema:
        return " or ".join(map(json.dumps, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array" and "items" in schema:
        return f"array of {described(schema['items'], root)}"
    return str(schema.get("format") or schema.get("type", "anything"))
