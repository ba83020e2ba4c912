"""Bring existing pictures in; works on the database and the store, without the API."""

from itertools import islice
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genonaut.api.config import Settings
from genonaut.cli.environment import settings_for
from genonaut.cli.output import EnvOption, JsonOption, console, errors, fail, print_json
from genonaut.cli.servers import database_of
from genonaut.clients.storage import open_storage
from genonaut.db.session import Database
from genonaut.domain import importing, orphans, users
from genonaut.domain.importing import Imported
from genonaut.worker import importing as folders
from genonaut.worker.importing import Refused
from genonaut.worker.rendering import Renderer

app = typer.Typer(help="The collection.", no_args_is_help=True, add_completion=False)

_BATCH = 20
_REFUSED_SHOWN = 20


@app.callback()
def _group() -> None:
    """The collection."""


@app.command("import")
def import_folder(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures, with what is below it.")],
    creator: Annotated[str, typer.Option(help="Name of the user whose they become.")],
    private: Annotated[
        bool, typer.Option("--private", help="Only the creator may see them.")
    ] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take existing pictures into the collection, each once; asked again, it goes on.

    Where a file tells how ComfyUI made it, prompt and settings are kept with it. Thumbnails are
    made by the next backfill: genonaut tasks run thumbnails.backfill
    """
    settings = settings_for(env)
    with database_of(settings) as database:
        with database.transaction() as session:
            creator_id = users.find_user(session, creator).id
        counts, refused = _import(settings, database, folder, creator_id, private=private)
    if as_json:
        print_json({**counts, "refused": [_public(one) for one in refused]})
    else:
        console.print(", ".join(f"{number} {name}" for name, number in counts.items()))
        for one in refused[:_REFUSED_SHOWN]:
            console.print(f"{one.path}: {one.error}", markup=False, soft_wrap=True)
    if refused:
        fail(f"files not taken in: {len(refused)}")


def _progress() -> Progress:
    return Progress(
        TextColumn("importing"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
    )


def _public(refused: Refused) -> dict[str, str]:
    return {"path": refused.path, "error": refused.error}


def _import(
    settings: Settings, database: Database, root: Path, creator_id: UUID, *, private: bool
) -> tuple[dict[str, int], list[Refused]]:
    storage = open_storage(settings, guard=orphans.storing(database))
    counts = {"imported": 0, "known": 0, "failed": 0}
    refused: list[Refused] = []
    with folders.opened(root) as folder, Renderer() as renderer, _progress() as progress:
        bar = progress.add_task("", total=sum(1 for _ in folders.walk(folder)))
        rest = folders.walk(folder)
        while batch := list(islice(rest, _BATCH)):
            taken: list[Imported] = []
            for found in batch:
                outcome = folders.take(folder, found, storage, renderer)
                if isinstance(outcome, Imported):
                    taken.append(outcome)
                else:
                    refused.append(outcome)
                progress.advance(bar)
            with database.transaction() as session:
                orphans.keep(session, storage, [one.storage_key for one in taken])
                new = importing.add(session, taken, creator_id, is_private=private)
            counts["imported"] += new
            counts["known"] += len(taken) - new
    counts["failed"] = len(refused)
    return counts, refused
