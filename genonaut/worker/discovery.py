"""Find the tasks: importing every module of a package declares them; nothing keeps a list."""

import importlib
import pkgutil
from functools import lru_cache
from types import ModuleType
from typing import Any

from genonaut.api.config import get_settings
from genonaut.worker import task

PACKAGE = "genonaut.worker.tasks"


@lru_cache(maxsize=1)
def load() -> None:
    """Import every task module: ours, and those of the packages in ``TASK_PACKAGES``.

    Raises: TaskDeclarationError: a task is declared wrongly.
    """
    for package in (PACKAGE, *get_settings().extra_task_packages):
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
