"""Interactions in which there is something to learn: users of a few tastes, items of one each, some more popular."""

import numpy as np
from scipy import sparse

from jobs.ranking.item_model import fit
from jobs.ranking.neighbours import Together, co_occurring
from schemas.item_models import CooccurrenceModel

USERS, ITEMS, TASTES = 300, 90, 6
DEPTH, MIN_SUPPORT = 20, 2


def clustered_interactions(seed, values=(1.0, 2.0, 0.5)):
    """Users x items, 3 to 9 items each, four of five of the user's taste."""
    rng = np.random.default_rng(seed)
    popularity = 1 / (1 + rng.permutation(ITEMS)) ** 0.5
    taste_of_item = np.arange(ITEMS) % TASTES
    rows = []
    for taste in rng.integers(0, TASTES, USERS):
        chance = popularity * np.where(taste_of_item == taste, 4 * (TASTES - 1), 1)
        rows.append(np.sort(rng.choice(ITEMS, rng.integers(3, 10), replace=False, p=chance / chance.sum())))
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int32)
    indices = np.concatenate(rows).astype(np.int32)
    data = rng.choice(np.array(values, np.float32), len(indices))
    return sparse.csr_array((data, indices, indptr), shape=(USERS, ITEMS))


def correlations(interactions, model=None, depth=DEPTH, min_support=MIN_SUPPORT):
    """The whole table, as training makes it."""
    fitted = fit(interactions, model or CooccurrenceModel())
    together = Together.of(interactions)
    found = co_occurring(fitted, together, 0, interactions.shape[1], depth=depth, min_support=min_support)
    return found.as_table(0)
