"""Whether vectors know anything: two items of one user should be closer to each other than to somebody else's item."""

from typing import Final

import numpy as np
from scipy import sparse

from jobs.ranking.item_vectors import Vectors

LEAST_USERS: Final = 50  # with fewer, what they have in common may be chance
_TRIES: Final = 20_000
_SEED: Final = 1


def pairs_told_apart(interactions: sparse.csr_array, vectors: Vectors) -> float | None:
    """Say how far from chance two items of a user are told from an item of another user, in standard deviations.

    Of 20,000 tries, each takes two items of one user and one that is drawn from everybody's interactions, so that
    popular items do not win for being popular; the two have to be closer to each other. Ties count half. Zeros,
    constants and vectors that stand at other items are within 3 deviations of none. None if fewer than 50 users have
    two items.

    Shapes: interactions (users, items); vectors (items, components).
    """
    counts = np.diff(interactions.indptr)
    users = np.flatnonzero(counts >= 2)
    if len(users) < LEAST_USERS:
        return None
    random = np.random.default_rng(_SEED)
    user = users[random.integers(0, len(users), _TRIES)]
    first = random.integers(0, counts[user])
    # The second is any of the others: the first moved on by 1 … count - 1 places, around the end.
    second = (first + random.integers(1, counts[user])) % counts[user]
    start = interactions.indptr[user]
    one, two = interactions.indices[start + first], interactions.indices[start + second]
    other = interactions.indices[random.integers(0, interactions.nnz, _TRIES)]
    fair = (other != one) & (other != two)
    one, two, other = one[fair], two[fair], other[fair]
    wide = vectors.astype(np.float32)  # whole numbers: the sums are exact
    together, apart = (wide[one] * wide[two]).sum(axis=1), (wide[one] * wide[other]).sum(axis=1)
    won = np.where(together == apart, 0.5, together > apart)
    # A user's tries are not independent; those of at most all users are.
    independent = min(len(won), len(users))
    return float((won.mean() - 0.5) / (0.5 / np.sqrt(independent)))
