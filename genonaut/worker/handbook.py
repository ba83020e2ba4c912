"""Write ``docs/tasks.md``: every task with its parameters, from the catalogue alone."""

import json
from collections.abc import Iterable
from typing import Any

from genonaut.api.config import ROOT
from genonaut.worker import discovery
from genonaut.worker.task import TaskDefinition

PAGE = ROOT / "docs" / "tasks.md"

_HEAD = """\
# Tasks

Written by `make docs` from the tasks themselves; do not edit.
How to add one: [adding a task](adding-a-task.md).

Run one with `genonaut tasks run NAME key=value…`, or `POST /api/v1/admin/tasks/NAME/runs`.
"""


def page(tasks: Iterable[TaskDefinition[Any, Any]]) -> str:
    """Give the page, in Markdown."""
    return "\n".join([_HEAD, *(_section(definition) for definition in tasks)])


def own_page() -> str:
    """Give the page of the tasks that come with Genonaut."""
    tasks = discovery.catalogue().values()
    return page(task for task in tasks if task.module.startswith(f"{discovery.PACKAGE}."))


def _section(definition: TaskDefinition[Any, Any]) -> str:
    facts = [
        f"queue `{definition.queue}`",
        f"at most {_duration(definition.soft_limit_s)}",
        f"overlap: {definition.overlap}{' by key' if definition.overlap_key else ''}",
        *(["has a dry run"] if definition.has_dry_run else []),
        *(f"formerly `{alias}`" for alias in definition.aliases),
    ]
    lines = [
        f"## {definition.name}",
        "",
        f"**{definition.title}** ({'; '.join(facts)})",
        "",
        definition.description,
        "",
    ]
    fields = definition.params.model_fields
    if fields:
        lines += ["| parameter | default | |", "| --- | --- | --- |"]
        dumped = definition.params.model_construct().model_dump(mode="json", warnings=False)
        for name, field in fields.items():
            default = "required" if field.is_required() else f"`{_json(dumped.get(name))}`"
            lines.append(f"| `{name}` | {default} | {_cell(field.description or '')} |")
    else:
        lines.append("No parameters.")
    return "\n".join([*lines, ""])


def _duration(seconds: int) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _json(value: Any) -> str:
    return _cell(json.dumps(value, ensure_ascii=False))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(own_page(), encoding="utf-8")
