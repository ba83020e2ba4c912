"""Put items in order for many users at once, and measure how good an order is."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]


def best(scores: FloatArray, count: int) -> IntArray:
    """Give the best items of each row, best first; equals by their index.

    Args:
        scores: (b, m); NaN and -inf are never chosen.
        count: how many at most.
    Returns: (b, l), l the smaller of ``count`` and m; -1 where nothing is left to choose.
    """
    rows, items = scores.shape
    length = min(count, items)
    if not rows or not length:
        return np.zeros((rows, length), np.int64)
    clean = np.where(np.isnan(scores), -np.inf, scores)
    chosen = np.argpartition(clean, items - length, axis=1)[:, items - length :]
    chosen.sort(axis=1)
    found = np.take_along_axis(clean, chosen, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    found = np.take_along_axis(found, order, axis=1)
    return np.where(np.isneginf(found), -1, np.take_along_axis(chosen, order, axis=1))


def spread(groups: IntArray, most: int) -> NDArray[np.intp]:
    """Reorder each row so that no group has more than ``most`` places before the others had theirs.

    Args:
        groups: (b, l), the group of each place, best place first; below 0: no group, never held.
        most: at least 1.
    Returns: (b, l), the places in their new order; those over ``most`` follow all others, and
        among each kind the order is kept.
    """
    rows, length = groups.shape
    order = np.argsort(groups, axis=1, kind="stable")
    along = np.take_along_axis(groups, order, axis=1)
    place = np.arange(length)
    begins = np.zeros((rows, length), np.int64)
    begins[:, 1:] = np.where(along[:, 1:] != along[:, :-1], place[1:], 0)
    nth = place - np.maximum.accumulate(begins, axis=1)
    late = np.empty((rows, length), bool)
    np.put_along_axis(late, order, (nth >= most) & (along >= 0), axis=1)
    return np.argsort(late, axis=1, kind="stable")


def hits(lists: IntArray, wanted: IntArray) -> tuple[FloatArray, FloatArray]:
    """Measure lists against the one item each user took up next.

    Args:
        lists: (n, k), item indices, best first; -1 for an empty place.
        wanted: (n,), the item that was held back.
    Returns: recall (n,), 1 where it is in the list; and NDCG (n,), less the further down it is.
    Source: Järvelin, Kekäläinen (2002), with one relevant item, so that the ideal gain is 1.
    """
    found = (lists == wanted[:, None]) & (lists >= 0)
    recall = found.any(axis=1).astype(np.float32)
    if not lists.shape[1]:
        return recall, recall
    gain = recall / np.log2(found.argmax(axis=1) + 2)
    return recall, gain.astype(np.float32)


def coverage(lists: IntArray, items: int) -> float:
    """Give the share of ``items`` that is in at least one list."""
    chosen = lists[lists >= 0]
    return len(np.unique(chosen)) / items if items else 0.0
