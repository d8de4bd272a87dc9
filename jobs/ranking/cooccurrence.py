"""Item-item correlations from the users x items matrix: cosine of the sets of users who showed interest."""

import numpy as np
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import list_column, rank_within
from jobs.ranking.sparse_product import top_n_product
from schemas.tables import CORRELATIONS

# Pairs below the least support are dropped after the top n was taken, so more are taken at first.
_SUPPORT_MARGIN = 3


def normalised(interactions: sparse.csr_array) -> sparse.csr_array:
    """Divide each column of a 0/1 matrix by its length, so that columns' products are cosines."""
    users_per_item = np.bincount(interactions.indices, minlength=interactions.shape[1])
    length = np.sqrt(np.maximum(users_per_item, 1)).astype(np.float32)
    return sparse.csr_array(
        (1 / length[interactions.indices], interactions.indices, interactions.indptr), shape=interactions.shape
    )


def correlate_block(
    items_by_users: sparse.csr_array, users_by_items: sparse.csr_array, first: int, *, top: int, min_support: int
) -> pa.Table:
    """Find the best correlated items of a block of items.

    Grain:  one row per item of the block that has a correlated one; an item is never its own.
    Shapes: items_by_users (block, users) holds the rows `first`… of the transpose of users_by_items (users, items),
            both from `normalised`.
    Units:  support counts the users that showed interest in both.
    Source: Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001 (cosine).
    """
    found = top_n_product(items_by_users, users_by_items, top * _SUPPORT_MARGIN + 1)
    item = np.repeat(np.arange(found.shape[0]) + first, np.diff(found.indptr))
    # A normalised entry is 1/sqrt(users of the item), and cosine x sqrt(users x users) is the count itself.
    inverse_length = np.zeros(users_by_items.shape[1])
    inverse_length[users_by_items.indices] = users_by_items.data
    support = np.rint(found.data / (inverse_length[item] * inverse_length[found.indices])).astype(np.int32)
    keep = (item != found.indices) & (support >= min_support)
    row, other, score, support = item[keep], found.indices[keep], found.data[keep], support[keep]
    best = rank_within(row) < top
    row, other, score, support = row[best], other[best], score[best], support[best]
    items, counts = np.unique(row, return_counts=True)
    return pa.table(
        {
            "item": pa.array(items, pa.int32()),
            "other_item": list_column(CORRELATIONS, "other_item", other, counts),
            "score": list_column(CORRELATIONS, "score", score, counts),
            "support": list_column(CORRELATIONS, "support", support, counts),
        },
        schema=CORRELATIONS.schema,
    )
