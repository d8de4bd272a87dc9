"""Whether vectors know anything: two items of one user should be closer to each other than to somebody else's item."""

from typing import Final

import numpy as np
from scipy import sparse

from jobs.ranking.item_vectors import Vectors

LEAST_USERS: Final = 50  # with fewer, chance alone may be far from one half
_MOST_USERS: Final = 20_000
_SEED: Final = 1


def pairs_told_apart_share(interactions: sparse.csr_array, vectors: Vectors) -> float | None:
    """Say how often an item of a user is told from an item of another user's by a second item of theirs; 0.5 is chance.

    The other item is drawn from everybody's interactions, so that popular items do not win for being popular. Ties
    count half. None if fewer than 50 users have two items. Zeros, constants, and vectors that stand at other items
    give one half.

    Shapes: interactions (users, items); vectors (items, components).
    """
    counts = np.diff(interactions.indptr)
    users = np.flatnonzero(counts >= 2)[:_MOST_USERS]
    if len(users) < LEAST_USERS:
        return None
    random = np.random.default_rng(_SEED)
    first = random.integers(0, counts[users])
    # The second is any of the others: the first moved on by 1 … count - 1 places, around the end.
    second = (first + random.integers(1, counts[users])) % counts[users]
    start = interactions.indptr[users]
    one, two = interactions.indices[start + first], interactions.indices[start + second]
    else_ = interactions.indices[random.integers(0, interactions.nnz, len(users))]
    fair = (else_ != one) & (else_ != two)
    one, two, else_ = one[fair], two[fair], else_[fair]
    wide = vectors.astype(np.int64)
    together, apart = (wide[one] * wide[two]).sum(axis=1), (wide[one] * wide[else_]).sum(axis=1)
    return float(np.mean(np.where(together == apart, 0.5, together > apart)))
