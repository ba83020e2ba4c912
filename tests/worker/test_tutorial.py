"""The tutorial's code is right: it is run here, as it stands."""

import re
import sys
from types import ModuleType

import pytest

from genonaut.api.config import ROOT
from genonaut.worker import defaults, task

TEXT = (ROOT / "docs" / "adding-a-task.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def tutorial(monkeypatch):
    """Make the modules the reader is told to write."""
    made = {}
    for path, code in FILES.items():
        name = path.removesuffix(".py").replace("/", ".")
        module = made[path] = ModuleType(name)
        parent, _, child = name.rpartition(".")
        monkeypatch.setitem(sys.modules, name, module)
        if parent in sys.modules:
            monkeypatch.setattr(sys.modules[parent], child, module, raising=False)
        exec(compile(code, path, "exec"), module.__dict__)
    yield made
    task.forget("titles.fill")
    defaults.forget("titles.fill.nightly")


def test_its_test_passes(tutorial, run_task, database, make_user):
    module = tutorial["tests/worker/tasks/test_titles.py"]
    module.test_names_what_has_no_name_once(run_task, database, make_user)


def test_it_names_the_places_where_things_belong(tutorial):
    assert set(tutorial) == {
        "genonaut/domain/titles.py",
        "genonaut/worker/schedules/titles.py",
        "genonaut/worker/tasks/titles.py",
        "tests/worker/tasks/test_titles.py",
    }
    assert task.find("titles.fill").public()["queue"] == "maintenance"
    assert defaults.declared()["titles.fill.nightly"].params["title"] == "Night"
