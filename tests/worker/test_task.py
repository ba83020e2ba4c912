"""A task that is declared wrongly is told so at import; a right one describes itself."""

import json
from typing import Any

import pytest
from pydantic import ConfigDict, Field

from genonaut.core.errors import InvalidInputError
from genonaut.domain.runs import Overlap, Trigger
from genonaut.worker import task
from genonaut.worker.task import (
    TaskContext,
    TaskDeclarationError,
    TaskParams,
    TaskResult,
    UnknownTaskError,
)


class Params(TaskParams):
    """What to count."""

    upto: int = Field(default=3, ge=1, le=100, description="The last number.")
    words: tuple[str, ...] = Field(default=(), description="Any words.")


class Result(TaskResult):
    """The sum."""

    total: int


def add(ctx: TaskContext, params: Params) -> Result:
    """Add numbers up.

    As often as one likes.
    """
    return Result(total=params.upto)


def test_everything_comes_from_models_and_docstring(declare):
    made = declare(add, "toys.add", overlap="wait", dry_run=True, soft_limit_s=60)
    shown = made.public()
    assert shown["description"] == "Add numbers up.\n\nAs often as one likes."
    assert shown["params_schema"]["properties"]["upto"]["maximum"] == 100
    assert (shown["soft_limit_s"], shown["hard_limit_s"]) == (60, 360)
    assert (shown["overlap"], shown["dry_run"]) == ("wait", True)
    json.dumps(shown)
    assert task.find("toys.add") is made
    assert made.module == __name__


def test_an_older_name_still_finds_it(declare):
    made = declare(add, "toys.add", aliases=("toys.sum",))
    assert task.find("toys.sum") is made
    assert {"toys.add", "toys.sum"} <= task.known_names()
    with pytest.raises(UnknownTaskError):
        task.find("toys.nothing")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "add"}, "area.verb"),
        ({"name": "Toys.add"}, "area.verb"),
        ({"name": "toys.add/../x"}, "area.verb"),
        ({"name": "t." + "a" * 100}, "area.verb"),
        ({"queue": "nowhere"}, "no queue 'nowhere'"),
        ({"title": " "}, "no title"),
        ({"soft_limit_s": 0}, "soft limit"),
        ({"soft_limit_s": 10**6}, "soft limit"),
        ({"max_attempts": 0}, "attempts"),
        ({"aliases": ("bad",)}, "area.verb"),
    ],
)
def test_a_wrong_option_is_named(declare, options, says):
    with pytest.raises(TaskDeclarationError, match=says):
        declare(add, **options)


def test_a_name_is_given_once(declare):
    declare(add, "toys.add", aliases=("toys.sum",))
    with pytest.raises(TaskDeclarationError, match=r"'toys.add' is taken by"):
        declare(add, "toys.add")
    with pytest.raises(TaskDeclarationError, match=r"'toys.sum' is taken by"):
        declare(add, "toys.other", aliases=("toys.sum",))


class NoDescription(TaskParams):
    """Wrong."""

    n: int = Field(default=1)


class BadDefault(TaskParams):
    """Wrong."""

    n: int = Field(default=0, ge=1, description="Too small.")


class Odd:
    """Nothing that JSON knows."""


class NotJson(TaskResult):
    """Wrong."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    odd: Odd


class HasStatus(TaskResult):
    """Wrong."""

    status: str


def _work(params: Any, result: Any) -> Any:
    def work(ctx, params):
        """Do something."""

    work.__annotations__ = {"ctx": TaskContext, "params": params, "return": result}
    return work


@pytest.mark.parametrize(
    ("params", "result", "says"),
    [
        (NoDescription, Result, "NoDescription.n has no description"),
        (BadDefault, Result, "default of BadDefault.n does not validate"),
        (Params, NotJson, "NotJson is not JSON"),
        (Params, HasStatus, "no field 'status'"),
        (dict, Result, "TaskParams"),
        (Params, dict, "TaskResult"),
        (Params, None, "TaskResult"),
    ],
)
def test_wrong_models_are_named(declare, params, result, says):
    with pytest.raises(TaskDeclarationError, match=says):
        declare(_work(params, result))
    assert "toys.one" not in task.known_names()


def test_a_function_without_docstring_or_with_other_arguments_is_refused(declare):
    def silent(ctx: TaskContext, params: Params) -> Result:
        return Result(total=0)

    def alone(params: Params) -> Result:
        """Do something."""
        return Result(total=0)

    with pytest.raises(TaskDeclarationError, match="docstring"):
        declare(silent)
    with pytest.raises(TaskDeclarationError, match=r"\(ctx, params\)"):
        declare(alone)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"upto": "many"}, "params.upto"),
        ({"upto": "7"}, "params.upto"),
        ({"upto": True}, "params.upto"),
        ({"upto": 0}, "params.upto"),
        ({"other": 1}, "params.other"),
        ({"words": ["a", 1]}, "params.words.1"),
        ([], "params"),
        ({"words": ["x" * 70_000]}, "params"),
    ],
)
def test_wrong_parameters_name_the_field(declare, given, field):
    with pytest.raises(InvalidInputError) as refused:
        declare(add).validate(given)
    assert refused.value.field == field
    assert field in str(refused.value)


def test_a_parameter_that_is_gone_is_dropped_for_a_release(declare):
    class Shorter(TaskParams):
        """What is left."""

        retired = frozenset({"speed"})
        n: int = Field(default=1, description="A number.")

    made = declare(_work(Shorter, Result))
    assert made.validate({"speed": 9, "n": 2}) == Shorter(n=2)
    with pytest.raises(InvalidInputError):
        made.validate({"other": 9})


def test_a_request_carries_what_the_catalogue_knows(declare):
    made = declare(add, queue="maintenance", overlap_key=lambda p: str(p.upto), dry_run=True)
    params = made.validate({"upto": 7})
    request = made.request(params, trigger=Trigger.CLI, actor="ada")
    assert (request.queue, request.overlap_key, request.actor) == ("maintenance", "7", "ada")
    assert request.params == {"upto": 7, "words": []}
    dry = made.request(params, trigger=Trigger.CLI, dry_run=True, overlap=Overlap.ALLOW)
    assert (dry.overlap_key, dry.overlap) == ("dry:7", Overlap.ALLOW)


def test_a_dry_run_of_a_task_that_has_none_is_refused(declare):
    made = declare(add)
    with pytest.raises(InvalidInputError, match="no dry run"):
        made.request(made.validate({}), trigger=Trigger.CLI, dry_run=True)


def test_a_long_key_is_kept_by_its_hash(declare):
    made = declare(add, overlap_key=lambda p: "".join(p.words))
    long, other = ("x" * 300, "y"), ("x" * 300, "z")
    keys = [
        made.request(made.validate({"words": list(words)}), trigger=Trigger.API).overlap_key
        for words in (long, long, other)
    ]
    assert keys[0] == keys[1] != keys[2]
    assert all(len(key) == 64 for key in keys)
