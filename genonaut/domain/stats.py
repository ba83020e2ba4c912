"""Count the collection: per creator, model and day."""

from datetime import date, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Date, case, cast, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.db.models import ContentImage, ContentItem, ContentStat, GenerationJob, User

UNKNOWN_MODEL = "unknown"
DEFAULT_SPAN = timedelta(days=30)
ROWS = 100
"""At most so many creators, models and days are told of."""

_LOCK = "content_stats"


def refresh(session: Session, *, days: int | None = None) -> int:
    """Count anew, all days or the last ``days`` (UTC, today included); give the rows counted.

    One statement counts and stores; a second one drops what has no pictures any more. Safe in
    parallel: whoever comes second waits, and counts what is there then.
    """
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(_LOCK, 0))))
    today: Any = cast(func.timezone("UTC", func.now()), Date)
    since = None if days is None else today - (days - 1)
    day: Any = cast(func.timezone("UTC", ContentItem.created_at), Date)
    model = func.coalesce(GenerationJob.checkpoint_model, UNKNOWN_MODEL)
    images = (
        select(func.count())
        .where(ContentImage.content_id == ContentItem.id)
        .correlate(ContentItem)
        .scalar_subquery()
    )
    is_public = case((ContentItem.is_private, 0), else_=1)
    counted = (
        select(
            ContentItem.creator_id,
            model.label("model"),
            day.label("day"),
            func.count().label("items"),
            func.sum(images).label("images"),
            func.sum(is_public).label("public_items"),
            func.sum(images * is_public).label("public_images"),
            func.now().label("refreshed_at"),
        )
        .join(GenerationJob, GenerationJob.content_id == ContentItem.id, isouter=True)
        .group_by(ContentItem.creator_id, model, day)
    )
    if since is not None:
        counted = counted.where(
            ContentItem.created_at >= func.timezone("UTC", cast(since, Date)), day >= since
        )
    names = [column.name for column in counted.selected_columns]
    new = insert(ContentStat).from_select(names, counted)
    stored = session.execute(
        new.on_conflict_do_update(
            index_elements=["creator_id", "model", "day"],
            set_={name: new.excluded[name] for name in names[3:]},
        ).returning(ContentStat.day)
    )
    count = len(stored.all())
    gone = delete(ContentStat).where(ContentStat.refreshed_at < func.now())
    session.execute(gone if since is None else gone.where(ContentStat.day >= since))
    return count


def read(
    session: Session,
    viewer_id: UUID,
    *,
    since: date,
    creator: str | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """Give totals since a day, and the same by creator, model and day, ready for JSON.

    Others' private pictures are not counted, one's own are.
    """
    mine = ContentStat.creator_id == viewer_id
    items = case((mine, ContentStat.items), else_=ContentStat.public_items)
    images = case((mine, ContentStat.images), else_=ContentStat.public_images)
    seen = (
        select(
            User.username,
            ContentStat.model,
            ContentStat.day,
            items.label("items"),
            images.label("images"),
            ContentStat.refreshed_at,
        )
        .join(User, User.id == ContentStat.creator_id)
        .where(ContentStat.day >= since, or_(mine, ContentStat.public_items > 0))
    )
    if creator is not None:
        seen = seen.where(User.username == creator)
    if model is not None:
        seen = seen.where(ContentStat.model == model)
    rows = seen.cte("seen")
    whole = session.execute(select(*_totals(rows), func.max(rows.c.refreshed_at).label("at"))).one()

    return {
        "since": since.isoformat(),
        "refreshed_at": whole.at.isoformat() if whole.at else None,
        "items": int(whole.items or 0),
        "images": int(whole.images or 0),
        "creators": _by(session, rows, "username"),
        "models": _by(session, rows, "model"),
        "days": _by(session, rows, "day", newest_first=True),
    }


def _totals(rows: CTE) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    return (func.sum(rows.c["items"]).label("items"), func.sum(rows.c.images).label("images"))


def _by(
    session: Session, rows: CTE, name: str, *, newest_first: bool = False
) -> list[dict[str, Any]]:
    column = rows.c[name]
    totals = _totals(rows)
    order = column.desc() if newest_first else totals[0].desc()
    found = session.execute(
        select(column, *totals).group_by(column).order_by(order, column).limit(ROWS)
    )
    return [
        {
            name: key.isoformat() if isinstance(key, date) else key,
            "items": int(items),
            "images": int(images),
        }
        for key, items, images in found
    ]
