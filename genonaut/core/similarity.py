"""Tell how alike texts are: words to vectors, numbers in, numbers out."""

import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

FloatArray: TypeAlias = NDArray[np.float32]
Matrix: TypeAlias = Any

VOCABULARY = 2**17
"""Words are told apart by their hash; so many hashes there are."""

_WORD = re.compile(r"[^\W_]{2,40}")
_OVERSAMPLE = 8
_POWER_STEPS = 2


def words(text: str) -> list[str]:
    """Take a prompt apart: lower case, letters and digits, two to forty of them."""
    return _WORD.findall(text.lower())


def hashed(tokens: Iterable[str]) -> NDArray[np.int32]:
    """Give the distinct hashes of tokens, ascending; the same in every process."""
    found = {zlib.crc32(token.encode(errors="replace")) % VOCABULARY for token in tokens}
    return np.array(sorted(found), np.int32)


def table(rows: Sequence[NDArray[np.int32]]) -> Matrix:
    """Lay the hashes of m texts out as a sparse (m, VOCABULARY) matrix of ones."""
    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    columns = np.concatenate(rows) if rows else np.empty(0, np.int32)
    ones = np.ones(len(columns), np.float32)
    return sparse.csr_matrix((ones, columns, ends), shape=(len(rows), VOCABULARY))


def vectors(tokens: Matrix, *, dimensions: int = 48, seed: int = 0) -> FloatArray:
    """Give each text a vector, so that texts with words of the same kind lie close.

    TF-IDF, then the strongest directions by a randomized singular value decomposition. A word that
    one text alone has says nothing of another, and one that all have says nothing.

    Args:
        tokens: (m, v), sparse, 1 where a text has a word.
        dimensions: how many directions at most.
        seed: of the random start; the same gives the same vectors.
    Returns: (m, d), unit rows; zeros for a text without a telling word.
    Source: N. Halko, P. Martinsson, J. Tropp (2011), algorithms 4.4 and 5.1.
    """
    texts = tokens.shape[0]
    used = np.bincount(tokens.indices, minlength=tokens.shape[1])
    telling = np.flatnonzero((used > 1) & (used < max(texts, 2)))
    size = min(dimensions, len(telling), texts)
    if size < 1:
        return np.zeros((texts, 1), np.float32)
    rarity = np.log(texts / used[telling]).astype(np.float32)
    weighed = _unit_rows(tokens[:, telling].multiply(rarity).tocsr())
    start = np.random.default_rng(seed).standard_normal(
        (len(telling), min(size + _OVERSAMPLE, len(telling), texts)), dtype=np.float32
    )
    sketch = weighed @ start
    for _ in range(_POWER_STEPS):
        sketch = weighed @ (weighed.T @ np.linalg.qr(sketch)[0])
    basis = np.linalg.qr(sketch)[0]
    _, _, directions = np.linalg.svd((weighed.T @ basis).T, full_matrices=False)
    return unit(np.asarray(weighed @ directions[:size].T, np.float32))


def unit(rows: FloatArray) -> FloatArray:
    """Scale rows to length 1; a row of zeros, or one that is not finite, becomes zeros."""
    clean = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    length = np.linalg.norm(clean, axis=1, keepdims=True)
    made: FloatArray = np.divide(clean, length, out=np.zeros_like(clean), where=length > 1e-6)
    return made


def _unit_rows(matrix: Matrix) -> Matrix:
    length = np.sqrt(matrix.multiply(matrix).sum(axis=1)).A1 if matrix.nnz else np.ones(1)
    length[length == 0] = 1
    return sparse.diags_array((1 / length).astype(np.float32)) @ matrix
