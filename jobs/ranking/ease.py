"""EASE: the weights that predict each item from all others, in closed form, as one dense items x items matrix."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from jobs.lake.scratch import Scratch
from jobs.ranking.cooccurrence import CooccurrenceItems, popular_items, squared_lengths
from schemas.errors import ConfigError, GateError
from schemas.item_models import EaseModel

Dense = npt.NDArray[np.float32]

# The weights are items² x 4 bytes (25,000 items: 2.5 GB) and the inverse takes
# min(items, users)³ multiplications (12,000: half a minute on two cores).
MOST_ITEMS = 25_000
MOST_INVERTED = 12_000
_ROWS = 512  # rows that are looked at together


@dataclass(frozen=True)
class EaseItems:
    """The weights, their diagonal 0."""

    weights: Dense

    @classmethod
    def fit(cls, interactions: sparse.csr_array, settings: EaseModel) -> Self:
        """Solve for the weights.

        Raises: ConfigError if the catalog is too large to invert; GateError if the weights are not finite.
        Source: Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019 (equation 8).
        """
        users, items = interactions.shape
        if not fits(users, items):
            raise ConfigError(
                f"{items:,} items and {users:,} users are too many for the model ease, expected at most "
                f"{MOST_ITEMS:,} items and {MOST_INVERTED:,} of one of them; choose a cooccurrence model"
            )
        lengths, _ = squared_lengths(interactions)
        scale = np.where(lengths > 0, np.maximum(lengths, 1e-30) ** (-settings.user_exponent / 2), 0)
        row = np.repeat(np.arange(users), np.diff(interactions.indptr))
        data = (interactions.data * scale[row]).astype(np.float32)
        x = sparse.csr_array((data, interactions.indices, interactions.indptr), shape=interactions.shape)
        weights = _weights(x, settings.regularisation)
        if settings.cooccurrence is not None and settings.cooccurrence_share > 0:
            _blend(weights, CooccurrenceItems.fit(interactions, settings.cooccurrence), settings.cooccurrence_share)
        if settings.popularity > 0:
            popular = popular_items(interactions)
            for rows in _chunks(items):
                part = weights[rows]
                part += settings.popularity * np.maximum(part, 0).sum(axis=1, keepdims=True) * popular[None, :]
        np.fill_diagonal(weights, 0)
        if not np.isfinite(weights).all():
            raise GateError("a score or weight is not finite, so nothing was ranked; train the correlations again")
        return cls(weights)

    def block(self, first: int, last: int, depth: int, *, signed: bool = False, threads: int = 1) -> sparse.csr_array:
        """Give the best `depth` others of items first…last-1; see jobs/ranking/item_model.py."""
        parts = [
            _best(self.weights[start : min(start + _ROWS, last)], depth, signed)
            for start in range(first, max(last, first + 1), _ROWS)
        ]
        stacked: sparse.csr_array = sparse.vstack(parts, format="csr") if len(parts) > 1 else parts[0]
        return stacked

    def save(self, scratch: Scratch, name: str) -> None:
        """Write the weights under a name."""
        scratch.save_array(name, self.weights)

    @classmethod
    def load(cls, scratch: Scratch, name: str) -> Self:
        """Map what `save` wrote."""
        return cls(scratch.load_array(name))


def fits(users: int, items: int) -> bool:
    """Tell whether a catalog is small enough to invert."""
    return items <= MOST_ITEMS and min(users, items) <= MOST_INVERTED


def _weights(x: sparse.csr_array, regularisation: float) -> Dense:
    """Solve by the smaller of the two inverses, that of XᵀX + λ or that of XXᵀ + λ.

    With P = (XᵀX + λ)⁻¹ the weights are -P_ij / P_jj; and P = (1 - Z)/λ for Z = Xᵀ (XXᵀ + λ)⁻¹ X.
    """
    users, items = x.shape
    _, lengths = squared_lengths(x)
    if not lengths.any():
        return np.zeros((items, items), np.float32)
    ridge = regularisation * lengths.sum() / np.count_nonzero(lengths)
    if items <= users:
        weights = _inverse(_gram(x.T.tocsr(), ridge))
        weights /= -np.diag(weights).copy()[None, :]
    else:
        solved = _inverse(_gram(x, ridge)) @ x  # (users, items), dense
        weights = x.T.tocsr() @ solved
        weights /= np.maximum(1 - np.diag(weights), 1e-6)[None, :]
    np.fill_diagonal(weights, 0)
    return weights


def _gram(rows: sparse.csr_array, ridge: float) -> Dense:
    """Multiply the matrix with its transpose, dense, and add to the diagonal."""
    other = rows.T.tocsr()
    gram = np.empty((rows.shape[0], rows.shape[0]), np.float32)
    for chunk in _chunks(rows.shape[0]):
        gram[chunk] = (rows[chunk] @ other).toarray()
    gram[np.diag_indices(len(gram))] += np.float32(ridge)
    return gram


def _inverse(gram: Dense) -> Dense:
    """Invert a positive definite matrix in its own memory."""
    factor, failed = linalg.lapack.spotrf(gram.T, lower=1, overwrite_a=1, clean=0)
    if failed:
        raise GateError("the items' products cannot be inverted; raise the regularisation of the model ease")
    inverse, _ = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    # LAPACK fills one triangle; as rows of C order that is the upper one.
    found: Dense = inverse.T
    for chunk in _chunks(len(found)):
        found[chunk.stop :, chunk] = found[chunk, chunk.stop :].T
        square = found[chunk, chunk]
        found[chunk, chunk] = np.triu(square) + np.triu(square, 1).T
    return found


def _blend(weights: Dense, cooccurrence: CooccurrenceItems, share: float) -> None:
    """Add the co-occurrence to the weights, both divided by their mean row sum."""
    items = len(weights)
    sums = np.zeros(2)
    for rows in _chunks(items):
        sums += np.maximum(weights[rows], 0).sum(), cooccurrence.dense(rows.start, rows.stop).sum()
    own, other = (1 - share) * items / max(sums[0], 1e-30), share * items / max(sums[1], 1e-30)
    for rows in _chunks(items):
        weights[rows] = np.float32(own) * weights[rows] + np.float32(other) * cooccurrence.dense(rows.start, rows.stop)


def _chunks(rows: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS)]


def _best(rows: Dense, depth: int, signed: bool) -> sparse.csr_array:
    """Cut dense rows to the `depth` largest scores above 0 (signed: largest by size); best first, ties by column."""
    size = np.abs(rows) if signed else rows
    depth = min(depth, rows.shape[1])
    edge = np.partition(size, rows.shape[1] - depth, axis=1)[:, rows.shape[1] - depth] if depth else np.inf
    row, column = np.nonzero((size >= np.reshape(edge, (-1, 1))) & (size > 0))
    # By size first, so that a tie at the edge is cut by column; then in the order of the list.
    order = np.lexsort((column, -size[row, column], row))
    counts = np.bincount(row, minlength=len(rows))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[place < depth]
    kept = kept[np.lexsort((column[kept], -rows[row[kept], column[kept]], row[kept]))]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row[kept], minlength=len(rows)))))
    return sparse.csr_array(
        (rows[row[kept], column[kept]], column[kept].astype(np.int32), indptr.astype(np.int32)), shape=rows.shape
    )
