"""Read what recommendations are made from, a page at a time, into arrays.

The server packs each page into one value; no object is made per interaction.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from genonaut.api.config import Settings
from genonaut.core import similarity
from genonaut.domain.recommendations import Catalogue, Feedback

Transactions: TypeAlias = Callable[[], AbstractContextManager[Session]]
Ids: TypeAlias = NDArray[Any]
"""UUIDs as (n,) ``V16``, in the order PostgreSQL sorts them by."""

PAGE = 100_000
TEXT_PAGE = 5_000

_KINDS = ("view", "like", "rate", "download", "share", "dismiss")
_VIEW, _LIKE, _RATE, _DOWNLOAD, _SHARE, _DISMISS = range(len(_KINDS))
_NOBODY = UUID(int=0)

_ACTS = np.dtype(
    [
        ("user", "V16"),
        ("item", ">i8"),
        ("kind", ">i2"),
        ("rating", ">i2"),
        ("times", ">i4"),
        ("age_s", ">f4"),
    ]
)
_READ_ACTS = text(
    f"""
    WITH page AS (
        SELECT user_id, content_id, kind, rating, times, updated_at FROM user_interactions
        WHERE (user_id, content_id, kind) > (:user, :item, :kind) AND created_at <= :as_of
        ORDER BY user_id, content_id, kind LIMIT :limit
    )
    SELECT string_agg(
            uuid_send(user_id) || int8send(content_id)
            || int2send((array_position(ARRAY{list(_KINDS)}, kind::text) - 1)::int2)
            || int2send(coalesce(rating, 0::int2)) || int4send(times)
            || float4send(extract(epoch FROM :as_of - least(updated_at, :as_of))::float4),
            ''::bytea ORDER BY user_id, content_id, kind) AS packed,
        (SELECT ARRAY[user_id::text, content_id::text, kind] FROM page
            ORDER BY user_id DESC, content_id DESC, kind DESC LIMIT 1) AS last
    FROM page
    """  # noqa: S608 - our own words alone
)
_READ_ITEMS = text(
    """
    SELECT i.id, i.creator_id, extract(epoch FROM :as_of - i.created_at)::float4 AS age_s,
        left(i.prompt, 2000) AS prompt, j.checkpoint_model, j.lora_models
    FROM content_items i LEFT JOIN generation_jobs j ON j.content_id = i.id
    WHERE NOT i.is_private AND i.id > :after AND i.created_at <= :as_of
    ORDER BY i.id LIMIT :limit
    """
)


@dataclass(frozen=True, slots=True)
class Weights:
    """What each act says for a picture; a rating's by its stars above two."""

    view: float
    like: float
    rate: float
    download: float
    share: float

    @classmethod
    def of(cls, settings: Settings) -> "Weights":
        """Read them from the settings."""
        return cls(
            view=settings.recommend_weight_view,
            like=settings.recommend_weight_like,
            rate=settings.recommend_weight_rate,
            download=settings.recommend_weight_download,
            share=settings.recommend_weight_share,
        )


@dataclass(frozen=True, slots=True)
class Signals:
    """All there is to learn from: ``users`` (n,) and ``items`` (m,) name what the numbers index."""

    users: Ids
    items: NDArray[np.int64]
    feedback: Feedback
    catalogue: Catalogue


def read(transactions: Transactions, *, as_of: datetime, weights: Weights, seed: int) -> Signals:
    """Read every interaction with a public item of somebody else's that began by a moment.

    One that was repeated or taken back since is read as it is now. Those with items that are
    deleted or private by now are left out.
    """
    items, creators, ages, vectors = _items(transactions, as_of, seed)
    users: list[Ids] = []
    parts: list[tuple[NDArray[Any], ...]] = []
    known, last = 0, None
    for page in _pages(transactions, as_of):
        begins = np.ones(len(page), bool)
        begins[1:] = page["user"][1:] != page["user"][:-1]
        begins[0] = page["user"][0] != last
        last = page["user"][-1]
        users.append(page["user"][begins])
        user = known - 1 + np.cumsum(begins)
        known += int(begins.sum())
        place = np.searchsorted(items, page["item"])
        place[place == len(items)] = 0
        kept = items[place] == page["item"] if len(items) else np.zeros(len(page), bool)
        kept[kept] = creators[place[kept]] != page["user"][kept]
        acts = page[kept]
        strength, liked = weigh(acts["kind"], acts["rating"], acts["times"], weights)
        age_s = np.maximum(acts["age_s"], 0).astype(np.float32)
        index = user[kept].astype(np.int32), place[kept].astype(np.int32)
        parts.append((*index, strength, age_s, liked))
    names = np.concatenate(users) if users else np.empty(0, "V16")
    empty = (np.empty(0, np.int32),) * 2 + (np.empty(0, np.float32),) * 2 + (np.empty(0, bool),)
    columns = [np.concatenate(column) for column in zip(*(parts or [empty]), strict=True)]
    _, creator = np.unique(creators, return_inverse=True)
    catalogue = Catalogue(creator.astype(np.int64), _places(names, creators), ages, vectors)
    return Signals(names, items, Feedback(len(names), *columns), catalogue)


def weigh(
    kind: NDArray[Any], rating: NDArray[Any], times: NDArray[Any], weights: Weights
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Say how much each act (k,) speaks for its item, and whether it means liking.

    Repetition counts by its logarithm. A dismissal is -1, whatever was taken back 0.
    """
    by_kind = np.array(
        [weights.view, weights.like, weights.rate, weights.download, weights.share, 0], np.float32
    )
    strength = by_kind[kind] * (1 + np.log2(np.maximum(times, 1), dtype=np.float32))
    stars = np.maximum(rating.astype(np.float32) - 2, 0) / 3
    strength = np.where(kind == _RATE, weights.rate * stars, strength)
    strength = np.where(kind == _DISMISS, -1, strength)
    strength = np.where(times > 0, strength, 0).astype(np.float32)
    liked = (kind == _LIKE) | (kind == _SHARE) | (kind == _DOWNLOAD)
    return strength, (liked | ((kind == _RATE) & (rating >= 4))) & (times > 0)


def _places(names: Ids, wanted: Ids) -> NDArray[np.int64]:
    """Find each of ``wanted`` in ``names``, which are sorted; -1 where it is not."""
    both, back = np.unique(np.concatenate([names, wanted]), return_inverse=True)
    place = np.full(len(both), -1, np.int64)
    place[back[: len(names)]] = np.arange(len(names))
    found: NDArray[np.int64] = place[back[len(names) :]]
    return found


def _pages(transactions: Transactions, as_of: datetime) -> Iterator[NDArray[Any]]:
    last = [str(_NOBODY), "0", ""]
    while True:
        with transactions() as session:
            values = {"as_of": as_of, "user": UUID(last[0]), "item": int(last[1]), "kind": last[2]}
            found = session.execute(_READ_ACTS, {**values, "limit": PAGE}).one()
        if found.packed is None:
            return
        yield np.frombuffer(found.packed, _ACTS)
        last = found.last


def _items(
    transactions: Transactions, as_of: datetime, seed: int
) -> tuple[NDArray[np.int64], Ids, NDArray[np.float32], NDArray[np.float32]]:
    ids: list[int] = []
    creators = bytearray()
    ages: list[float] = []
    tokens: list[NDArray[np.int32]] = []
    while True:
        with transactions() as session:
            values = {"as_of": as_of, "after": ids[-1] if ids else 0, "limit": TEXT_PAGE}
            rows = session.execute(_READ_ITEMS, values).all()
        for row in rows:
            ids.append(row.id)
            creators += row.creator_id.bytes
            ages.append(row.age_s)
            tokens.append(similarity.hashed(_tokens(row)))
        if len(rows) < TEXT_PAGE:
            break
    return (
        np.array(ids, np.int64),
        np.frombuffer(bytes(creators), "V16"),
        np.array(ages, np.float32),
        similarity.vectors(similarity.table(tokens), seed=seed),
    )


def _tokens(row: Any) -> Iterator[str]:
    yield from similarity.words(row.prompt or "")
    if row.checkpoint_model:
        yield f"checkpoint:{row.checkpoint_model}"
    for lora in row.lora_models or []:
        name = lora.get("name") if isinstance(lora, dict) else lora
        if isinstance(name, str):
            yield f"lora:{name}"
