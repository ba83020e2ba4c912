"""Find tasks and schedules: importing every module of a package declares them; no list is kept."""

import importlib
import pkgutil
from functools import lru_cache
from types import ModuleType
from typing import Any

from genonaut.api.config import get_settings
from genonaut.worker import task

PACKAGE = "genonaut.worker.tasks"
SCHEDULES = "genonaut.worker.schedules"


@lru_cache(maxsize=1)
def load() -> None:
    """Import every task module, ours and those of ``TASK_PACKAGES``, and every schedule.

    Raises:
        TaskDeclarationError: a task is declared wrongly.
        ScheduleDeclarationError: a schedule is.
    """
    for package in (PACKAGE, SCHEDULES, *get_settings().extra_task_packages):
        _import_all(importlib.import_module(package))


def catalogue() -> dict[str, task.TaskDefinition[Any, Any]]:
    """Give every task by name, sorted."""
    load()
    return task.catalogue()


def known_names() -> set[str]:
    """Give every name a run may carry, older ones among them."""
    load()
    return task.known_names()


def _import_all(package: ModuleType) -> None:
    for module in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{package.__name__}."):
        importlib.import_module(module.name)
