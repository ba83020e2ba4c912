"""Fill an environment with a believable collection: users with tastes, pictures, what they did."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from genonaut.cli.environment import settings_for
from genonaut.cli.output import console, fail
from genonaut.cli.servers import database_of
from genonaut.clients.storage import Storage, open_storage
from genonaut.db.models import User, UserInteraction
from genonaut.domain import orphans
from genonaut.domain import users as accounts

if TYPE_CHECKING:
    from genonaut.core.planted import Planted

ACTOR = "cli"
PREFIX = "seed-"
_CHECKPOINTS = ("sd_xl_base_1.0.safetensors", "dreamshaper_8.safetensors", "flux1-dev.safetensors")
_PICTURES = 24
_EDGE = 256
_SLICE = 100_000

_SUBJECTS = [
    "a lighthouse",
    "a sailing ship",
    "a heron",
    "a fox",
    "a cathedral",
    "a greenhouse",
    "a locomotive",
    "a market",
    "a dragon",
    "an astronaut",
    "a violin",
    "a waterfall",
    "a chess game",
    "a tea house",
    "a glacier",
    "a carnival",
    "a beekeeper",
    "an old library",
    "a racing car",
    "a coral reef",
    "a desert caravan",
    "a snowy owl",
    "a robot",
    "a wheat field",
]
_SCENES = [
    "in a storm",
    "at dawn",
    "under two moons",
    "in deep snow",
    "by candle light",
    "after the rain",
    "in autumn",
    "from above",
    "in ruins",
    "at the end of a pier",
    "on a quiet morning",
    "in thick fog",
]
_STYLES = [
    "oil painting",
    "woodcut",
    "watercolour",
    "film photo",
    "pixel art",
    "charcoal",
    "art nouveau poster",
    "isometric",
    "stained glass",
    "pencil sketch",
    "claymation",
    "double exposure",
]


def seed(
    users: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many users.")] = 200,
    items: Annotated[int, typer.Option(min=1, max=2_000_000, help="How many pictures.")] = 1000,
    interactions: Annotated[
        int, typer.Option(min=0, max=50_000_000, help="About how many views and likes.")
    ] = 20_000,
    number: Annotated[int, typer.Option("--seed", help="The same gives the same.")] = 0,
    env: Annotated[str, typer.Option("--env", help="Environment: demo, test or dev.")] = "demo",
) -> None:
    """Fill the database with users, pictures and what they did, so there is something to recommend.

    All or nothing. Pictures of one taste share their file; thumbnails are left to the backfill.
    """
    from genonaut.core.planted import plant

    if env not in {"demo", "test", "dev"}:
        fail("only demo, test and dev are seeded", status=2)
    settings = settings_for(env)
    console.print("drawing tastes and pictures…")
    data = plant(users, items, interactions, seed=number)
    with database_of(settings) as database, database.transaction() as session:
        storage = open_storage(settings, guard=orphans.storing(database))
        session.execute(text("SET LOCAL statement_timeout = '15min'"))
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        taken = session.scalar(
            select(func.count()).where(User.username.startswith(PREFIX, autoescape=True))
        )
        ids = _make_users(session, users, after=taken or 0)
        made = _make_items(session, storage, data, ids, number)
        count = _make_interactions(session, data, ids, made)
        accounts.audit(
            session, ACTOR, "demo.seed", env, {"users": users, "items": items, "acts": count}
        )
    console.print(f"{users} users, {items} pictures, {count} interactions in {env}")
    console.print(f"now: genonaut tasks run recommendations.refresh --wait --env {env}")


def _make_users(session: Session, count: int, *, after: int) -> list[UUID]:
    rows = [{"username": f"{PREFIX}{after + n:06d}"} for n in range(1, count + 1)]
    return list(
        session.scalars(insert(User).returning(User.id, sort_by_parameter_order=True), rows)
    )


def _make_items(
    session: Session, storage: Storage, data: "Planted", ids: Sequence[UUID], number: int
) -> list[int]:
    """Copy items, their jobs and images; give the items' ids."""
    import numpy as np

    from genonaut.core.planted import SPAN_S
    from genonaut.db.copying import copy_text

    random = np.random.default_rng(number + 1)
    count = len(data.taste)
    creator = np.minimum((random.random(count) ** 2 * len(ids)).astype(int), len(ids) - 1)
    files = [_picture(storage, n) for n in range(min(_PICTURES, count))]
    first = _reserve(session, "content_items", count)
    jobs = _reserve(session, "generation_jobs", count)
    began = datetime.now(UTC) - timedelta(seconds=SPAN_S)
    items, made_by, images = [], [], []
    for n in range(count):
        prompt, checkpoint = _prompt(int(data.taste[n]), random)
        owner, at = ids[creator[n]], (began + timedelta(seconds=float(data.born[n]))).isoformat()
        items.append(f"{first + n}\t{prompt}\t{prompt}\t{owner}\t{at}\t{at}")
        made_by.append(
            f"{jobs + n}\t{owner}\t{prompt}\t{checkpoint}\t{_EDGE}\t{_EDGE}\t{first + n}\tcompleted"
            f"\t1\t{at}\t{at}\t{at}\t{at}\t{at}" + '\t{"phase": "completed", "percent": 100}'
        )
        key, digest, size = files[int(data.taste[n]) % len(files)]
        images.append(f"{first + n}\t0\t{key}\t{digest}\timage/png\t{_EDGE}\t{_EDGE}\t{size}\t{at}")
    tables: dict[str, tuple[list[str], str]] = {
        "content_items": (items, "id title prompt creator_id created_at updated_at"),
        "generation_jobs": (
            made_by,
            "id user_id prompt checkpoint_model width height content_id status attempt"
            " available_at created_at updated_at started_at completed_at progress",
        ),
        "content_images": (
            images,
            "content_id position storage_key sha256 mime width height bytes created_at",
        ),
    }
    for table, (lines, columns) in tables.items():
        for start in range(0, len(lines), _SLICE):
            copy_text(
                session, table, columns.split(), "\n".join(lines[start : start + _SLICE]) + "\n"
            )
    return list(range(first, first + count))


def _make_interactions(
    session: Session, data: "Planted", ids: Sequence[UUID], items: Sequence[int]
) -> int:
    from genonaut.core.planted import SPAN_S
    from genonaut.db.copying import copy_text

    began = datetime.now(UTC) - timedelta(seconds=SPAN_S)
    columns = ["user_id", "content_id", "kind", "rating", "created_at", "updated_at"]
    count = 0
    for start in range(0, len(data.user), _SLICE):
        part = slice(start, start + _SLICE)
        lines = []
        acts = zip(data.user[part], data.item[part], data.rating[part], data.at[part], strict=True)
        for user, item, rating, at in acts:
            when = (began + timedelta(seconds=float(at))).isoformat()
            head, tail = f"{ids[user]}\t{items[item]}", f"{when}\t{when}"
            lines.append(f"{head}\tview\t\\N\t{tail}")
            if rating == 5:
                lines.append(f"{head}\trate\t5\t{tail}")
            elif rating == 4:
                lines.append(f"{head}\tlike\t\\N\t{tail}")
        copy_text(session, UserInteraction.__tablename__, columns, "\n".join(lines) + "\n")
        count += len(lines)
    return count


def _reserve(session: Session, table: str, count: int) -> int:
    """Take so many ids of a table at once; give the first."""
    sequence = func.pg_get_serial_sequence(table, "id")
    first: int = session.scalars(select(func.nextval(sequence))).one()
    session.execute(select(func.setval(sequence, first + count - 1)))
    return first


def _prompt(taste: int, random: Any) -> tuple[str, str]:
    """Give a prompt and a checkpoint that pictures of one taste have in common."""
    subject = _SUBJECTS[taste % len(_SUBJECTS)]
    style = _STYLES[(taste // len(_SUBJECTS)) % len(_STYLES)]
    scene = _SCENES[int(random.integers(len(_SCENES)))]
    checkpoint = _CHECKPOINTS[taste % len(_CHECKPOINTS)]
    return f"{subject} {scene}, {style}, no. {taste}", checkpoint


def _picture(storage: Storage, number: int) -> tuple[str, str, int]:
    """Draw a plain picture and store it; give its key, hash and size."""
    from PIL import Image

    hue = number * 256 // _PICTURES
    light = Image.linear_gradient("L")
    flat = Image.new("L", light.size, hue)
    picture = Image.merge("HSV", (flat, Image.new("L", light.size, 150), light)).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    key = storage.put(file.getvalue(), mime="image/png")
    return key, key.rpartition("/")[2].partition(".")[0], len(file.getvalue())
