"""Find tasks, schedules and channels: importing the modules of a package finds them."""

import importlib
import pkgutil
from functools import lru_cache
from types import ModuleType
from typing import Any

from genonaut.api.config import get_settings
from genonaut.worker import task
from genonaut.worker.channel import Channel

PACKAGE = "genonaut.worker.tasks"
SCHEDULES = "genonaut.worker.schedules"
CHANNELS = "genonaut.worker.channels"


@lru_cache(maxsize=1)
def load() -> None:
    """Import every task module, ours and those of ``TASK_PACKAGES``, and every schedule.

    Raises:
        TaskDeclarationError: a task is declared wrongly.
        ScheduleDeclarationError: a schedule is.
    """
    for package in (PACKAGE, SCHEDULES, *get_settings().extra_task_packages):
        _import_all(_package(package))


def catalogue() -> dict[str, task.TaskDefinition[Any, Any]]:
    """Give every task by name, sorted."""
    load()
    return task.catalogue()


def known_names() -> set[str]:
    """Give every name a run may carry, older ones among them."""
    load()
    return task.known_names()


@lru_cache(maxsize=1)
def channels() -> dict[str, Channel]:
    """Give every way to reach a user by name, the application itself first."""
    found: list[Channel] = [module.CHANNEL for module in _import_all(_package(CHANNELS))]
    return {channel.name: channel for channel in sorted(found, key=_order)}


def _order(channel: Channel) -> tuple[bool, str]:
    return channel.has_addresses, channel.name


def _package(name: str) -> ModuleType:
    return importlib.import_module(name)


def _import_all(package: ModuleType) -> list[ModuleType]:
    modules = pkgutil.iter_modules(getattr(package, "__path__", ()), f"{package.__name__}.")
    return [importlib.import_module(module.name) for module in modules]
