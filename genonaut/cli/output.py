"""Print for people, or as JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

EnvOption = Annotated[
    str | None,
    typer.Option("--env", help="Environment: demo, test, dev or your own.  [default: APP_ENV]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str, *, status: int = 1) -> NoReturn:
    """Print one line and end with ``status``."""
    errors.print(f"[red]genonaut:[/red] {escape(' '.join(message.split()))}", soft_wrap=True)
    sys.exit(status)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings, without a frame, so that they can be cut and pasted."""
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    console.print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one thing, a field a line."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        shown = "" if value is None else str(value)
        console.print(f"[bold]{name.ljust(width)}[/bold]  {escape(shown)}", soft_wrap=True)


def local_time(text: str | None) -> str:
    """Show an ISO time in the reader's zone, to the second."""
    if not text:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
