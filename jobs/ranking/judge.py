"""Judge every candidate of a few users: its score, and the first rule that kept it out of the list, if one did.

The ranking looks at no candidate that is ruled out; this does, with the same inputs, for explanations and waterfalls.
It costs as much as there are candidates (some hundreds a user), so it is for one user or a sample of them.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.distinct import distinct
from jobs.lake.list_columns import flat, lengths, rank_within
from jobs.ranking.capped_lists import TAKEN, fates
from jobs.ranking.csr_rows import row_of
from jobs.ranking.recommend import Shared, caps_of, own_lists
from jobs.ranking.rules import IN_LIST, RULES, Causes, first_causes
from jobs.ranking.user_batch import UserBatch
from schemas.ranking_rules import RankingSettings
from schemas.tables import RECOMMENDATION_SOURCES

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Verdicts:
    """One row per user and candidate of their own history or wishlist, best first within a user.

    `user`: a row of the batch. `score`: with its boost. `causes.rule`: a position in RULES, or IN_LIST.
    """

    user: Int64s
    item: Int64s
    score: npt.NDArray[np.float32]
    causes: Causes


def judge(batch: UserBatch, shared: Shared, settings: RankingSettings, lists: pa.Table) -> Verdicts:
    """Judge the candidates of a batch; `lists` is what `recommend` gives for it."""
    facts = shared.facts
    _, ranked_over_whole = own_lists(batch, shared, settings)
    scores = candidates(batch.interest, shared, ranked_over_whole)
    user, item = row_of(scores), scores.indices.astype(np.int64)
    score = scores.data * facts.boost[item]
    order = np.lexsort((item, -score, user))
    user, item, score = user[order], item[order], score[order]
    causes = first_causes(user, item, batch.excluded, facts.dropped_by, facts.twins)
    passed = np.flatnonzero(causes.rule == IN_LIST)
    causes.rule[passed] = _places(user[passed], item[passed], settings, shared, lists)
    return Verdicts(user, item, score, causes)


def candidates(interest: sparse.csr_array, shared: Shared, whole: npt.NDArray[np.bool_]) -> sparse.csr_array:
    """Score everything that goes with the users' recent items, ruled out or not, before boosts.

    Shapes: interest (users, items); whole (users,), who is ranked over the whole table instead of its near part.
    """
    if shared.table is None:
        return interest
    recent = distinct(interest.indices).astype(np.int64)
    renamed = sparse.csr_array(
        (interest.data, np.searchsorted(recent, interest.indices), interest.indptr),
        shape=(interest.shape[0], len(recent)),
    )
    near = renamed @ shared.table.rows(recent, near=True)
    if not whole.any():
        return sparse.csr_array(near)
    deep = sparse.diags_array(whole.astype(np.float32), format="csr") @ renamed
    shallow = sparse.diags_array((~whole).astype(np.float32), format="csr") @ near
    return sparse.csr_array(shallow + deep @ shared.table.rows(recent, near=False))


def count_verdicts(verdicts: Verdicts, users: int) -> "Counter[str]":
    """Count the waterfall of a batch; counters of batches add up.

    `candidates` and `users_with_candidates` at the top; per rule `dropped.RULE` (candidates) and `users_left.RULE`
    (users with a candidate after it); `in_list` at the bottom. All of `dropped` and `in_list` make `candidates`.
    """
    rule = verdicts.causes.rule
    dropped = np.bincount(rule[rule != IN_LIST], minlength=len(RULES))
    reached = np.full(users, -1)
    np.maximum.at(reached, verdicts.user, np.where(rule == IN_LIST, len(RULES), rule))
    left = [int((reached > place).sum()) for place in range(-1, len(RULES))]
    return Counter(
        {
            "users": users,
            "candidates": len(rule),
            "users_with_candidates": left[0],
            **{f"dropped.{name}": int(count) for name, count in zip(RULES, dropped, strict=True)},
            **{f"users_left.{name}": count for name, count in zip(RULES, left[1:], strict=True)},
            "in_list": int((rule == IN_LIST).sum()),
        }
    )


def _places(user: Int64s, item: Int64s, settings: RankingSettings, shared: Shared, lists: pa.Table) -> Int64s:
    """Tell of candidates that nothing rules out whether they are in the list, or what kept them out of it.

    Shapes: user and item (candidates,), best first within a user.
    """
    listed_user = np.repeat(np.arange(len(lists)), lengths(lists["item"]))
    own = RECOMMENDATION_SOURCES.index("wishlist" if shared.table is None else "history")
    is_own = flat(lists["source"]) == own
    size = np.int64(len(shared.facts.dropped_by))
    is_new = flat(lists["source"]) == RECOMMENDATION_SOURCES.index("exposure")
    # A new item that took a slot may be a candidate of the user's own as well.
    listed = np.isin(user * size + item, (listed_user * size + flat(lists["item"]))[is_own | is_new])
    # A list that was dropped as too short holds nothing; what would have been in it is behind that rule.
    rule = np.where((lengths(lists["item"]) == 0)[user], RULES.index("too_few_items"), RULES.index("beyond_slots"))
    gave_way = np.zeros(len(lists), np.bool_)
    gave_way[listed_user[is_new]] = True
    caps = caps_of(settings, shared.facts)
    taken = rank_within(user) < settings.slots
    if caps:
        indptr = np.searchsorted(user, np.arange(len(lists) + 1))
        ranked = sparse.csr_array((np.ones(len(item), np.float32), item, indptr), shape=(len(lists), size))
        fate = fates(ranked, settings.slots, caps)
        by_cap = np.array([RULES.index(cap.name) for cap in caps])
        rule = np.where(fate >= 0, by_cap[np.maximum(fate, 0)], rule)
        taken = fate == TAKEN
    # What the list held before a new item took its last slot.
    rule = np.where(taken & gave_way[user], RULES.index("gave_way_to_new"), rule)
    return np.where(listed, IN_LIST, rule)
