"""Words become the values a schema asks for."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from genonaut.cli import schema


class Inner(BaseModel):
    size: int


class Model(BaseModel):
    days: int | None = None
    ratio: float = 1.0
    name: str = ""
    label: str | None = None
    flag: bool = False
    sizes: tuple[int, ...] = ()
    inner: Inner | None = None
    mood: Literal["calm", "wild"] = "calm"
    level: Literal[1, 2] = 1
    anything: Any = None


WHOLE = Model.model_json_schema()


@pytest.mark.parametrize(
    ("key", "word", "value"),
    [
        ("days", "7", 7),
        ("days", "null", None),
        ("days", "many", "many"),
        ("days", '"7"', '"7"'),
        ("days", "true", "true"),
        ("days", "", ""),
        ("ratio", "2", 2),
        ("ratio", "0.5", 0.5),
        ("ratio", "NaN", "NaN"),
        ("name", "7", "7"),
        ("name", "true", "true"),
        ("name", "null", "null"),
        ("name", '"7"', "7"),
        ("name", "a=b {", "a=b {"),
        ("label", "null", None),
        ("flag", "true", True),
        ("flag", "yes", "yes"),
        ("sizes", "[256, 512]", [256, 512]),
        ("sizes", "256", "256"),
        ("inner", '{"size": 3}', {"size": 3}),
        ("inner", "[" * 100_000, "[" * 100_000),
        ("mood", "wild", "wild"),
        ("mood", '"wild"', "wild"),
        ("level", "2", 2),
        ("anything", "[1]", [1]),
        ("anything", "word", "word"),
    ],
)
def test_a_word_is_json_where_its_type_fits_and_else_a_text(key, word, value):
    found = schema.value(word, WHOLE["properties"][key], WHOLE)
    assert (found, type(found)) == (value, type(value))


def test_an_unknown_parameter_is_read_as_what_it_looks_like():
    assert schema.value("1", {}, {}) == 1
    assert schema.value("x", {}, {}) == "x"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("days", "integer or null"),
        ("sizes", "array of integer"),
        ("inner", "object or null"),
        ("mood", '"calm" or "wild"'),
        ("anything", "anything"),
    ],
)
def test_what_a_parameter_takes_is_said_in_words(key, words):
    assert schema.described(WHOLE["properties"][key], WHOLE) == words
