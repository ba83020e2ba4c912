"""Every task, present and future, is fit to be offered."""

import json
import re

import pytest

from genonaut.api.config import ROOT
from genonaut.worker import discovery, registration
from genonaut.worker.queue_app import celery
from genonaut.worker.queues import DELIVER, HARD_AFTER_SOFT_S, QUEUES, RUN_COMFY_JOB

TASKS = list(discovery.catalogue().values())


@pytest.mark.parametrize("definition", TASKS, ids=lambda d: d.name)
def test_a_task_tells_operators_what_it_does(definition):
    assert definition.description.endswith("."), "a docstring of whole sentences"
    assert definition.title[0].isupper()
    assert definition.queue in QUEUES
    for field in definition.params.model_fields.values():
        assert field.description.endswith(".")
    json.dumps(definition.public())


@pytest.mark.parametrize("definition", TASKS, ids=lambda d: d.name)
def test_its_defaults_validate_or_it_asks_for_what_it_needs(definition):
    if not any(field.is_required() for field in definition.params.model_fields.values()):
        params = definition.validate({})
        assert definition.validate(json.loads(params.model_dump_json())) == params


@pytest.mark.parametrize("definition", TASKS, ids=lambda d: d.name)
def test_it_has_a_test_module(definition):
    module = definition.module.removeprefix("genonaut.worker.tasks.")
    assert re.fullmatch(r"\w+", module)
    assert (ROOT / "tests" / "worker" / "tasks" / f"test_{module}.py").exists()


def test_workers_know_each_under_every_name():
    for definition in TASKS:
        for name in (definition.name, *definition.aliases):
            known = celery.tasks[name]
            assert known.soft_time_limit == definition.soft_limit_s
            assert known.time_limit == definition.hard_limit_s
            assert issubclass(type(known), registration.RunTask)
    assert RUN_COMFY_JOB in celery.tasks
    deliver = celery.tasks[DELIVER]
    assert deliver.time_limit == deliver.soft_time_limit + HARD_AFTER_SOFT_S
    assert DELIVER not in discovery.catalogue(), "only a row that is due starts it"
