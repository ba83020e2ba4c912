"""Print for people, or as JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

EnvOption = Annotated[
    str | None,
    typer.Option("--env", help="Environment: demo, test, dev or your own.", show_default="APP_ENV"),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="The API's address.", show_default="the environment's"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str, *, status: int = 1) -> NoReturn:
    """Print one line and end with ``status``."""
    errors.print(f"[red]genonaut:[/red] {escape(' '.join(message.split()))}", soft_wrap=True)
    sys.exit(status)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")


def given(values: Mapping[str, Any]) -> str:
    """Show parameters or results as JSON in a line, without what was left open."""
    told = {name: value for name, value in values.items() if value is not None}
    return json.dumps(told, ensure_ascii=False)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings, a line each however narrow the terminal, so that `cut` works."""
    lines = [[_cell(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        padded = [
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ]
        style = None if number else "bold"
        console.print(escape("  ".join(padded).rstrip()), style=style, soft_wrap=True)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return local_time(value)
    return "" if value is None else str(value)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one thing, a field a line."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        shown = "" if value is None else str(value)
        console.print(f"[bold]{name.ljust(width)}[/bold]  {escape(shown)}", soft_wrap=True)


def local_time(moment: datetime | str) -> str:
    """Show a time, or an ISO text of one, in the reader's zone, to the second."""
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
