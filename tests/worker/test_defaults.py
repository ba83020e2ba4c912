"""A schedule is declared beside its task, and a wrong one is found when it is imported."""

from datetime import timedelta

import pytest
from pydantic import Field

from genonaut.core.clock import utcnow
from genonaut.core.errors import InvalidInputError
from genonaut.domain.runs import Overlap
from genonaut.worker import defaults, discovery, reckoning
from genonaut.worker.defaults import ScheduleDeclarationError
from genonaut.worker.schedule import preview
from genonaut.worker.schedules import schedule
from genonaut.worker.task import TaskContext, TaskParams, TaskResult
from genonaut.worker.tasks.content import refresh_stats


class Params(TaskParams):
    n: int = Field(default=1, ge=0, description="How many.")


class Result(TaskResult):
    n: int


@pytest.fixture
def toy(declare):
    def count(_: TaskContext, params: Params) -> Result:
        """Count."""
        return Result(n=params.n)

    return declare(count, "toys.declared", overlap_key=lambda params: "abcdefghi"[params.n])


@pytest.fixture
def say(toy):
    def run(name="toys.hourly", **values):
        schedule(name, toy, **values)
        return defaults.declared()[name]

    yield run
    defaults.forget("toys.hourly")


def test_what_is_declared_is_in_full_and_in_its_usual_form(say):
    terms = say(cron=" 5  *  * * * ", params={"n": 2}, overlap="wait", timezone="Europe/Berlin")
    assert (terms.cron, terms.params, terms.overlap) == ("5 * * * *", {"n": 2}, Overlap.WAIT)
    assert terms.timezone == "Europe/Berlin"


def test_parameters_may_be_the_tasks_model_or_its_defaults(say):
    assert say(every=timedelta(minutes=5)).params == {"n": 1}
    defaults.forget("toys.hourly")
    terms = say(every=60, params=Params(n=3))
    assert (terms.params, terms.every_s) == ({"n": 3}, 60)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "give a cron or an interval"),
        ({"cron": "@daily", "every": 5}, "not both"),
        ({"cron": "0 0 31 2 *"}, "never occurs"),
        ({"cron": "@daily", "timezone": "Mars/Base"}, "no time zone"),
        ({"every": timedelta(seconds=1.5)}, "whole seconds"),
        ({"every": 0}, "interval is 1"),
        ({"every": 5, "params": {"n": "many"}}, "params.n"),
        ({"every": 5, "params": {"m": 1}}, "params.m"),
        ({"every": 5, "overlap": "queue"}, "'queue' is not a valid Overlap"),
        ({"every": 5, "missed": "maybe"}, "'maybe' is not a valid Missed"),
        ({"every": 5, "jitter_s": -1}, "jitter_s"),
        ({"every": 5, "name": "toys/hourly"}, "a name has"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(say, values, says):
    with pytest.raises(ScheduleDeclarationError, match=says):
        say(**values)


def test_a_name_is_given_once(say):
    say(every=5)
    with pytest.raises(ScheduleDeclarationError, match="taken"):
        say(every=5)


def test_what_comes_with_the_code_can_be_run_and_tells_when():
    discovery.load()
    terms = defaults.declared()["content.refresh_stats.hourly"]
    assert terms.task == refresh_stats.name
    for name, each in defaults.declared().items():
        assert name.startswith(each.task.partition(".")[0])
        assert reckoning.checked(each) == each
        assert len(preview(reckoning.timing_of(each), utcnow(), 3)) == 3


def test_an_operators_terms_are_checked_and_completed(toy):
    terms = reckoning.Terms(task=toy.name, cron="@hourly")
    assert reckoning.checked(terms).params == {"n": 1}
    assert reckoning.due_after(terms, utcnow()) > utcnow()
    for values, field in (
        ({"task": toy.name, "cron": "x"}, "cron"),
        ({"task": toy.name, "every_s": 5, "params": {"n": -1}}, "params.n"),
        ({"task": toy.name, "every_s": 5, "params": []}, "params"),
        ({"task": toy.name, "every_s": 5, "params": {"n": 9}}, "params"),
        ({"task": "toys.gone", "every_s": 5}, "task"),
    ):
        with pytest.raises(InvalidInputError) as refused:
            reckoning.checked(reckoning.Terms(**values))
        assert refused.value.field == field
