"""The rules that keep an item from a user, in order, each with the event that brought it about.

A rule is a name and the user-item combinations that it rules out. The ranking takes them all together as one matrix;
an explanation takes the first that applies. Rules of the item alone (the catalog's filters) are in item_facts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.profiles.mails import Mails
from jobs.profiles.pairs import DAY, NEVER, Pairs
from jobs.ranking.csr_rows import stacked
from jobs.ranking.item_facts import FILTERS, NO_KIND
from schemas.ranking_rules import EXCLUSIONS, ExcludeSettings, ExclusionName, LookBack
from schemas.tables import EVENT_TYPES

TWIN_OF: Final = "twin_of_"
# Every rule by name, in the order in which they are looked at.
EXCLUSION_RULES: Final = tuple(name for rule in EXCLUSIONS for name in (rule, TWIN_OF + rule))
# What keeps a candidate out of a list that no rule of the item or of the user does.
LIST_RULES: Final = ("category_full", "brand_full", "beyond_slots", "gave_way_to_new", "too_few_items")
RULES: Final = (*FILTERS, *EXCLUSION_RULES, *LIST_RULES)
IN_LIST: Final = -1  # the rule of what no rule keeps out
MAILED_EVENT: Final = -1  # not an event type: the instant is the date of the list that was mailed
_TRIGGERS: Final = {"bought": "purchase", "in_cart": "cart_add", "wishlisted": "wishlist_add", "seen": "view"}

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Exclusion:
    """One rule's verdict on a batch of users, a row per user and item that had the event.

    `name`: one of EXCLUSIONS. `user`: a row of the batch. `event_type`: a position in EVENT_TYPES, or MAILED_EVENT.
    `at`: when the event was, microseconds. `reaches_twins`: the twins of these items are ruled out too, as
    `twin_of_` and the name.
    """

    name: ExclusionName
    user: Int64s
    item: Int64s
    event_type: int
    at: Int64s
    reaches_twins: bool


def exclusions(pairs: Pairs, mails: Mails, rules: ExcludeSettings, now: int) -> list[Exclusion]:
    """List the exclusions that are on, in order, with what each rules out at an instant (microseconds).

    Mails are of the batch's users too. The day of `now` is the one after the lists' own.
    """
    twins: Sequence[ExclusionName] = rules.twins.of if rules.twins else ()
    found: list[Exclusion] = []
    for name in EXCLUSIONS:
        if name == "mailed":
            found.extend(_mailed(mails, rules, now, reaches_twins=name in twins))
        elif rules.look_back(name) != 0:
            at = pairs.last(_TRIGGERS[name])
            rows = np.flatnonzero(_has(pairs, name) & within(at, rules.look_back(name), now))
            kind = EVENT_TYPES.index(_TRIGGERS[name])
            found.append(Exclusion(name, pairs.user[rows], pairs.item[rows], kind, at[rows], name in twins))
    return found


def within(at: Int64s, days: LookBack, now: int) -> Bools:
    """Mark instants that a look-back reaches (0: none)."""
    if days == "for_ever":
        return at > NEVER
    return at >= now - days * DAY if days else np.zeros(len(at), np.bool_)


def exclusion_matrix(
    found: Sequence[Exclusion], twins: npt.NDArray[np.int32], users: int, groups: int
) -> sparse.csr_array:
    """Mark what is ruled out, whatever the rule: [E | T].

    Shapes: (users, items + groups); E marks items, T marks groups of twins, once for each rule.
    """
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for rule in found:
        parts.append((rule.user, rule.item))
        if rule.reaches_twins:
            group = twins[rule.item]
            parts.append((rule.user[group != NO_KIND], len(twins) + group[group != NO_KIND]))
    marked = [(user, column, np.ones(len(user), np.float32)) for user, column in parts]
    return stacked(marked, users, len(twins) + groups)


@dataclass(frozen=True)
class Causes:
    """Why each candidate is kept out: one entry per candidate.

    `rule`: a position in RULES, or IN_LIST where none of them does. `item`, `event_type`, `at`: the event that did,
    the item being another one for twins; -1 where the rule is a filter or nothing.
    """

    rule: Int64s
    item: Int64s
    event_type: Int64s
    at: Int64s


def first_causes(
    user: Int64s,
    item: Int64s,
    found: Sequence[Exclusion],
    dropped_by: npt.NDArray[np.int8],
    twins: npt.NDArray[np.int32],
) -> Causes:
    """Find the first rule that keeps each candidate (user and item) out.

    Shapes: user and item (candidates,); dropped_by and twins (items,), from ItemFacts.
    """
    rule = dropped_by[item].astype(np.int64)
    cause_item, event_type, at = (np.full(len(item), -1, np.int64) for _ in range(3))
    for exclusion in found:
        for name, own, wanted in _keys(exclusion, user, item, twins):
            open_rows = np.flatnonzero((rule == IN_LIST) & (wanted >= 0))
            order = np.lexsort((-exclusion.at, own))  # of several twins the one with the latest event
            place = np.searchsorted(own, wanted[open_rows], sorter=order)
            hit = place < len(own)
            hit[hit] = own[order[place[hit]]] == wanted[open_rows[hit]]
            rows, source = open_rows[hit], order[place[hit]]
            rule[rows] = RULES.index(name)
            cause_item[rows], at[rows] = exclusion.item[source], exclusion.at[source]
            event_type[rows] = exclusion.event_type
    return Causes(rule, cause_item, event_type, at)


def _keys(
    exclusion: Exclusion, user: Int64s, item: Int64s, twins: npt.NDArray[np.int32]
) -> Iterator[tuple[str, Int64s, Int64s]]:
    """Name the rule, and give the exclusion's and the candidates' keys; a candidate with -1 is never hit."""
    size = np.int64(len(twins))
    yield exclusion.name, exclusion.user * size + exclusion.item, user * size + item
    if exclusion.reaches_twins:
        group, wanted = twins[exclusion.item].astype(np.int64), twins[item].astype(np.int64)
        own = np.where(group == NO_KIND, -2, exclusion.user * size + group)
        yield TWIN_OF + exclusion.name, own, np.where(wanted == NO_KIND, -1, user * size + wanted)


def _has(pairs: Pairs, name: ExclusionName) -> Bools:
    """Mark the pairs that are in the state of a rule."""
    if name == "bought":
        return pairs.is_bought()
    if name == "in_cart":
        return pairs.is_in_cart()
    return pairs.is_wishlisted() if name == "wishlisted" else pairs.last("view") > NEVER


def _mailed(mails: Mails, rules: ExcludeSettings, now: int, *, reaches_twins: bool) -> Iterator[Exclusion]:
    if rules.mailed_days:
        # `now` is the end of the lists' own date.
        times = mails.times_within(now // DAY - 1, rules.mailed_days)
        rows = np.flatnonzero(times >= rules.mailed_times)
        at = mails.last_on[rows] * DAY
        yield Exclusion("mailed", mails.user[rows], mails.item[rows], MAILED_EVENT, at, reaches_twins)
