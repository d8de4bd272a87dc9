"""Recommend for one user bucket: what goes with the user's recent items, minus everything that is ruled out.

The answer is the row-wise top n of [R | E] · [C ; -M·I]: R weighs the user's recent items, E marks the excluded ones,
C holds the correlations without the columns of items that may not be recommended. M is larger than any score, so an
excluded item's score is negative whatever spoke for it, and only positive scores are kept.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import flat, lengths, list_column
from jobs.profiles.pairs import pairs_of_profiles
from jobs.ranking.sparse_product import top_n_product
from schemas.ranking_rules import ExcludeSettings
from schemas.tables import RECOMMENDATIONS

# Scores are sums of at most 100 weights of at most 4 x 100 times a cosine: far below a million.
_PENALTY = 1e6


def correlation_matrix(correlations: pa.Table, eligible: npt.NDArray[np.bool_]) -> sparse.csr_array:
    """Lay the correlations out as [C ; -M·I].

    Shapes: eligible (items,); the answer (2 x items, items), float32.
    """
    items = len(eligible)
    row_of = np.repeat(correlations["item"].to_numpy(), lengths(correlations["other_item"]))
    other, score = flat(correlations["other_item"]), flat(correlations["score"])
    keep = eligible[other]
    c = sparse.coo_array((score[keep], (row_of[keep], other[keep])), shape=(items, items)).tocsr()
    penalty = sparse.diags_array(np.full(items, -_PENALTY, np.float32), format="csr")
    matrix: sparse.csr_array = sparse.vstack([c, penalty], format="csr", dtype=np.float32)
    return matrix


def recommend(
    profiles: pa.Table,
    matrix: sparse.csr_array,
    *,
    slots: int,
    min_items: int,
    history_items: int,
    half_life_days: float,
    weights: list[float],
    exclude: ExcludeSettings,
    now: int,
) -> pa.Table:
    """Recommend up to `slots` items to each user of a bucket.

    Grain: one row per profile, in the profiles' order. Fewer than `min_items` become none.
    Units: `now` in microseconds; ages count from it.
    """
    pairs = pairs_of_profiles(profiles)
    items = matrix.shape[1]
    weighed = np.array(weights)
    interest = pairs.interest(weighed, half_life_days, now)
    recent = pairs.newest(interest > 0, history_items, weighed)
    r = pairs.matrix(recent, interest, items)
    e = pairs.matrix(pairs.is_excluded(exclude, now), np.ones(len(interest), np.float32), items)
    found = top_n_product(sparse.hstack([r, e], format="csr", dtype=np.float32), matrix, slots)
    count = np.diff(found.indptr)
    enough = count >= min_items
    keep = np.repeat(enough, count)
    kept_count = np.where(enough, count, 0)
    outcome = np.where(enough, "recommended", np.where(np.diff(r.indptr) > 0, "too_few", "no_history"))

    return pa.table(
        {
            "user_id": profiles["user_id"],
            "item": list_column(RECOMMENDATIONS, "item", found.indices[keep], kept_count),
            "score": list_column(RECOMMENDATIONS, "score", found.data[keep], kept_count),
            "outcome": pa.array(outcome, pa.string()),
        },
        schema=RECOMMENDATIONS.schema,
    )
