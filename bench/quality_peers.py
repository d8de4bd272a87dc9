"""The models that ryml is compared with: each fits on users x items and ranks for some users, the known items left out.

Settings are the packages' own or the usual ones of the literature; where one matters, the better of a few is taken on
the same held-back part of the training data that ryml chooses on.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

N = 20
_CELLS = 40_000_000  # users x items that are scored at a time: 160 MB
# EASE inverts a dense items x items matrix: 20,000 items are 1.6 GB and about two minutes on two cores.
EASE_MOST_ITEMS = 20_000

Scorer = Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]
Settings = dict[str, Any]


class DoesNotFitError(Exception):
    """A peer cannot take data of this size here."""


@dataclass(frozen=True)
class Peer:
    """A model by name: how it is fitted, and the settings that are tried, the first of them by default."""

    name: str
    fit: Callable[[sparse.csr_array, Settings, int], Scorer]
    settings: tuple[Settings, ...]


def rank(scorer: Scorer, train: sparse.csr_array, users: npt.NDArray[np.int64]) -> sparse.csr_array:
    """Rank all items for each user, the known and the untrained ones left out; ties by item."""
    items = train.shape[1]
    untrained = np.flatnonzero(np.bincount(train.indices, minlength=items) == 0)
    step = max(1, _CELLS // items)
    best, score = [], []
    for start in range(0, len(users), step):
        chunk = users[start : start + step]
        scores = np.array(scorer(chunk), np.float64)
        known = train[chunk]
        scores[np.repeat(np.arange(len(chunk)), np.diff(known.indptr)), known.indices] = -np.inf
        scores[:, untrained] = -np.inf
        top = _top(scores, min(N, items))
        best.append(top)
        score.append(np.take_along_axis(scores, top, axis=1))
    flat, value = np.concatenate(best), np.concatenate(score)
    keep = np.isfinite(value)
    indptr = np.concatenate(([0], np.cumsum(keep.sum(axis=1))))
    place = np.broadcast_to(1 / (1 + np.arange(flat.shape[1])), flat.shape)
    return sparse.csr_array(
        (place[keep].astype(np.float32), flat[keep].astype(np.int32), indptr), shape=(len(users), items)
    )


def _top(scores: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    # What ties at the edge is settled by item: a little off each score by its place, below any difference that counts.
    edge = np.partition(scores, scores.shape[1] - n, axis=1)[:, scores.shape[1] - n][:, None]
    row, column = np.nonzero(scores >= edge)
    order = np.lexsort((column, -scores[row, column], row))
    counts = np.bincount(row, minlength=len(scores))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return column[order][place < n].reshape(len(scores), n)


def popularity(train: sparse.csr_array, settings: Settings, threads: int) -> Scorer:
    """Score each item by its users."""
    users = np.bincount(train.indices, minlength=train.shape[1]).astype(np.float32)
    return lambda chunk: np.broadcast_to(users, (len(chunk), len(users)))


def implicit_neighbours(kind: str) -> Callable[[sparse.csr_array, Settings, int], Scorer]:
    """Score by one of implicit's item-item models; their weights are the repeats of an interaction."""

    def fit(train: sparse.csr_array, settings: Settings, threads: int) -> Scorer:
        from implicit import nearest_neighbours

        model = getattr(nearest_neighbours, kind)(K=settings["K"], num_threads=threads)
        with warnings.catch_warnings():  # it converts its own intermediate matrix, and warns of that
            warnings.simplefilter("ignore")
            model.fit(sparse.csr_matrix(train).astype(np.float64), show_progress=False)
        similarity, history = sparse.csr_matrix(model.similarity), sparse.csr_matrix(train)
        return lambda chunk: (history[chunk] @ similarity).toarray()

    return fit


def als(train: sparse.csr_array, settings: Settings, threads: int) -> Scorer:
    """Score by implicit's alternating least squares."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings, random_state=1, num_threads=threads)
    model.fit(sparse.csr_matrix(train).astype(np.float32), show_progress=False)
    return lambda chunk: model.user_factors[chunk] @ model.item_factors.T


def warp(train: sparse.csr_array, settings: Settings, threads: int) -> Scorer:
    """Score by LightFM with the WARP loss."""
    from lightfm import LightFM

    model = LightFM(no_components=settings["no_components"], loss="warp", random_state=1)
    ones = sparse.coo_matrix((np.ones(train.nnz, np.float32), train.nonzero()), shape=train.shape)
    model.fit(ones, epochs=settings["epochs"], num_threads=threads)
    return lambda chunk: model.user_embeddings[chunk] @ model.item_embeddings.T + model.item_biases[None, :]


def ease(train: sparse.csr_array, settings: Settings, threads: int) -> Scorer:
    """Score by EASE, dense and uncut, in double precision where that fits."""
    trained = np.unique(train.indices)
    items = len(trained)
    if items > EASE_MOST_ITEMS:
        raise DoesNotFitError(f"{items:,} items, EASE inverts at most {EASE_MOST_ITEMS:,} here")
    ones = sparse.csr_matrix((np.ones(train.nnz, np.float32), train.indices, train.indptr), shape=train.shape)
    ones = ones[:, trained]
    gram = (ones.T @ ones).toarray().astype(np.float64 if items <= 6_000 else np.float32)
    gram[np.diag_indices(items)] += settings["regularisation"]
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False, assume_a="pos")
    weights = (inverse / -np.diag(inverse)[None, :]).astype(np.float32)
    np.fill_diagonal(weights, 0)

    def score(chunk: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        scores = np.full((len(chunk), train.shape[1]), -np.inf, np.float32)
        scores[:, trained] = ones[chunk] @ weights
        return scores

    return score


DEPTHS: tuple[Settings, ...] = ({"K": 20}, {"K": 100}, {"K": 500})
PEERS = (
    Peer("popularity", popularity, ({},)),
    Peer("implicit-cosine", implicit_neighbours("CosineRecommender"), DEPTHS),
    Peer("implicit-bm25", implicit_neighbours("BM25Recommender"), DEPTHS),
    Peer("implicit-tfidf", implicit_neighbours("TFIDFRecommender"), DEPTHS),
    Peer(
        "implicit-als",
        als,
        (
            {"factors": 128, "regularization": 0.01, "alpha": 1.0},
            {"factors": 64, "regularization": 10.0, "alpha": 1.0},
            {"factors": 64, "regularization": 1.0, "alpha": 10.0},
        ),
    ),
    Peer("lightfm-warp", warp, ({"no_components": 64, "epochs": 30},)),
    Peer("ease", ease, ({"regularisation": 250.0}, {"regularisation": 50.0}, {"regularisation": 1000.0})),
)
