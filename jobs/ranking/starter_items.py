"""The items for a user of whom nothing but their features is known: one list per combination of features."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from jobs.lake.list_columns import list_column
from jobs.ranking.hybrid import HybridModel
from jobs.ranking.user_features import NOTHING_KNOWN, Feature, combination_matrix, combinations, features_in
from schemas.tables import HYBRID_USERS

Int64s = npt.NDArray[np.int64]

# Of 0, ¼, ½ and 1, a quarter and a half did best on both data sets of `make bench-cold`; 1 is worse than none on one.
_TASTE: Final = 0.5
_DIGITS: Final = 6  # of a score that ranks; sums differ beyond these with the order of their parts


def most_common(texts: pa.StringArray, limit: int) -> pa.StringArray:
    """Keep the `limit` most common combinations and the empty one, in byte order."""
    counts = pc.value_counts(texts)
    values, users = counts.field(0), counts.field(1).to_numpy()
    order = np.lexsort((pc.rank(values, sort_keys="ascending", tiebreaker="first").to_numpy(), -users))[:limit]
    kept = pa.concat_arrays([values.take(pa.array(order)), pa.array([NOTHING_KNOWN])]).unique()
    return kept.take(pc.sort_indices(kept))


def suitability(
    combinations_by_feature: sparse.csr_array,
    model: HybridModel,
    item_features: sparse.csr_array,
    demand: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Score items for combinations of user features: the logarithm of demand, moved by what the features like.

    What features like is half the model's product of user and item, less its mean over the combinations: of users of
    whom nothing special is known, demand alone decides.
    Shapes: combinations_by_feature (combinations, user features); item_features (items, features); demand (items,), as
            in jobs/ranking/trending.py, in units of a fresh look; the answer (combinations, items).
    """
    users = combinations_by_feature.astype(np.float64) @ model.user_vectors.astype(np.float64)
    vectors = item_features.astype(np.float64) @ model.item_vectors.astype(np.float64)
    taste = (users - users.mean(axis=0)) @ vectors.T
    scores: npt.NDArray[np.float64] = np.round(np.log1p(demand) + _TASTE * taste, _DIGITS)
    return scores


def starter_items(
    texts: pa.StringArray,
    known: list[Feature],
    model: HybridModel,
    item_features: sparse.csr_array,
    item: Int64s,
    demand: npt.NDArray[np.float64],
    *,
    depth: int,
) -> pa.Table:
    """Rank the items for each combination of user features.

    Grain: one row per combination. Scores fall from 1 and are above 0; they say in which order, not how much better.
    Shapes: item_features (candidates, features), item (candidates,), their places in the item index, and demand
            (candidates,), as for `suitability`.
    """
    scores = suitability(combination_matrix(texts, known).matrix, model, item_features, demand)
    place = np.argsort(item)
    # Sorted by item first, so that a stable sort settles ties by item.
    best = place[np.argsort(-scores[:, place], axis=1, kind="stable")[:, :depth]]
    ranked = np.take_along_axis(scores, best, axis=1)
    falling = np.maximum(np.exp(ranked - ranked[:, :1]), np.finfo(np.float32).tiny)
    counts = np.full(len(texts), best.shape[1])
    return pa.table(
        {
            "key": texts,
            "item": list_column(HYBRID_USERS, "item", item[best].reshape(-1), counts),
            "score": list_column(HYBRID_USERS, "score", falling.astype(np.float32).reshape(-1), counts),
        },
        schema=HYBRID_USERS.schema,
    )


def starter_rows(users: pa.Table, starters: pa.Table) -> npt.NDArray[np.int64]:
    """Find each user's row of the starters: that of their combination, else that of users of whom nothing is known.

    Shapes: users has `locale` and `properties`; the answer (users,).
    """
    keys = starters["key"].combine_chunks()
    wanted = combinations(users, features_in(keys.to_pylist()))
    unknown = keys.index(NOTHING_KNOWN).as_py()
    rows: npt.NDArray[np.int64] = pc.fill_null(pc.index_in(wanted, value_set=keys), unknown).to_numpy().astype(np.int64)
    return rows
