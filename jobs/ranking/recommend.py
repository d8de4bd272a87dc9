"""Recommend to a batch of users: what goes with their recent items, less what is ruled out; then fill short lists.

The answer is the row-wise best n of R · C without [E | T]: R weighs the users' recent items, C holds the correlations
of what may be recommended, E and T mark the items and groups of twins that are ruled out. Only positive scores count.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.distinct import distinct
from jobs.lake.list_columns import list_column
from jobs.ranking.capped_lists import Cap, capped_lists
from jobs.ranking.correlation_table import CorrelationTable, boosted, twin_groups
from jobs.ranking.csr_rows import row_of, stacked
from jobs.ranking.fallback import Ladder
from jobs.ranking.item_facts import NO_KIND, ItemFacts
from jobs.ranking.rules import exclusion_matrix
from jobs.ranking.user_batch import UserBatch
from schemas.ranking_rules import RankingSettings
from schemas.tables import RECOMMENDATION_SOURCES, RECOMMENDATIONS

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shared:
    """What all batches of a run are ranked with.

    `near`: the nearest eligible correlations of every item, as `boosted` makes them; for campaigns of what is back in
    stock, the items themselves, and `table` is None. `twins`: the items of each group of twins.
    """

    facts: ItemFacts
    near: sparse.csr_array
    table: CorrelationTable | None
    ladder: Ladder
    twins: sparse.csr_array


def near_matrix(table: CorrelationTable | None, facts: ItemFacts) -> sparse.csr_array:
    """Make what every user is ranked with at first."""
    items = len(facts.dropped_by)
    if table is None:
        return boosted(sparse.eye_array(items, format="csr", dtype=np.float32), facts)
    return boosted(table.rows(np.arange(items), near=True), facts)


def caps_of(settings: RankingSettings, facts: ItemFacts) -> list[Cap]:
    """List the diversity caps that are on."""
    rules = settings.diversity
    wanted = (
        ("category_full", rules.max_per_category, facts.category),
        ("brand_full", rules.max_per_brand, facts.brand),
    )
    return [Cap(name, most, kind) for name, most, kind in wanted if most is not None]


def recommend(batch: UserBatch, shared: Shared, settings: RankingSettings, features: Int64s | None = None) -> pa.Table:
    """Recommend up to `slots` items to each user of a batch.

    Grain:  one row per user, in the batch's order. Fewer than `min_items` become none.
    Shapes: features (users,), each user's group in the ladder's step `hybrid`, or NO_KIND; None: nobody has one.
    """
    caps = caps_of(settings, shared.facts)
    excluded = _excluded(batch, shared)
    own, _ = own_lists(batch, shared, settings, excluded)
    source = RECOMMENDATION_SOURCES.index("wishlist" if shared.table is None else "history")
    lists, sources = own, np.full(own.nnz, source, np.int8)
    features = np.full(len(batch), NO_KIND, np.int64) if features is None else features
    wanted = settings.min_items if settings.fallback.lists == "short" else settings.slots
    falls_back = np.diff(own.indptr) < wanted
    for step, name in enumerate(shared.ladder.steps):
        rows = np.flatnonzero(falls_back & (np.diff(lists.indptr) < settings.slots))
        if len(rows) == 0:
            break
        started = lists[rows]
        groups = shared.ladder.memberships(step, batch, features, rows)
        more = capped_lists(
            groups, shared.ladder.matrices[step], excluded[rows], settings.slots,
            caps=caps, twins=shared.twins, started=started,
        )  # fmt: skip
        lists, sources = _appended(lists, sources, rows, more, RECOMMENDATION_SOURCES.index(name))
    return _as_table(batch, lists, sources, settings)


def own_lists(
    batch: UserBatch, shared: Shared, settings: RankingSettings, excluded: sparse.csr_array | None = None
) -> tuple[sparse.csr_array, Bools]:
    """Rank what goes with the users' own items; say as well who is ranked over the whole table.

    Those are the users whose list comes up short with the near part of it, where the whole has more for them.
    `excluded` is the batch's exclusion matrix, where it is made already.
    """
    caps = caps_of(settings, shared.facts)
    excluded = _excluded(batch, shared) if excluded is None else excluded
    own = capped_lists(batch.interest, shared.near, excluded, settings.slots, caps=caps, twins=shared.twins)
    whole = np.zeros(len(batch), np.bool_)
    short = np.flatnonzero((np.diff(own.indptr) < settings.slots) & (np.diff(batch.interest.indptr) > 0))
    if shared.table is None or len(short) == 0:
        return own, whole
    interest, table = batch.interest[short], shared.table
    has_more = (np.diff(table.matrix.indptr) > table.near)[interest.indices]
    whole[short] = np.logical_or.reduceat(has_more, interest.indptr[:-1])
    short = np.flatnonzero(whole)
    if len(short) == 0:
        return own, whole
    interest = batch.interest[short]
    items = distinct(interest.indices).astype(np.int64)
    renamed = sparse.csr_array(
        (interest.data, np.searchsorted(items, interest.indices).astype(np.int32), interest.indptr),
        shape=(len(short), len(items)),
    )
    scores = boosted(table.rows(items, near=False), shared.facts)
    again = capped_lists(renamed, scores, excluded[short], settings.slots, caps=caps, twins=shared.twins)
    stays = ~whole[row_of(own)]
    parts = [
        (row_of(own)[stays], own.indices[stays], own.data[stays]),
        (short[row_of(again)], again.indices, again.data),
    ]
    return stacked(parts, *own.shape), whole


def _excluded(batch: UserBatch, shared: Shared) -> sparse.csr_array:
    return exclusion_matrix(batch.excluded, shared.facts.twins, len(batch), twin_groups(shared.facts))


def _appended(
    lists: sparse.csr_array, sources: npt.NDArray[np.int8], rows: Int64s, more: sparse.csr_array, source: int
) -> tuple[sparse.csr_array, npt.NDArray[np.int8]]:
    """Put what a step found behind what the rows hold."""
    parts = [(row_of(lists), lists.indices, lists.data), (rows[row_of(more)], more.indices, more.data)]
    order = np.argsort(np.concatenate([row for row, _, _ in parts]), kind="stable")
    joined = np.concatenate((sources, np.full(more.nnz, source, np.int8)))
    return stacked(parts, *lists.shape), joined[order]


def _as_table(
    batch: UserBatch, lists: sparse.csr_array, sources: npt.NDArray[np.int8], settings: RankingSettings
) -> pa.Table:
    count = np.diff(lists.indptr)
    enough = count >= settings.min_items
    keep, kept_count = np.repeat(enough, count), np.where(enough, count, 0)
    outcome = np.where(enough, 0, np.where(np.diff(batch.interest.indptr) > 0, 1, 2))
    return pa.table(
        {
            "user_id": batch.user_ids,
            "item": list_column(RECOMMENDATIONS, "item", lists.indices[keep], kept_count),
            "score": list_column(RECOMMENDATIONS, "score", lists.data[keep], kept_count),
            "source": list_column(RECOMMENDATIONS, "source", sources[keep], kept_count),
            "outcome": pa.array(["recommended", "too_few", "no_history"]).take(pa.array(outcome)),
        },
        schema=RECOMMENDATIONS.schema,
    )
