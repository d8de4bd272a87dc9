"""The last look at a chunk's lists: what became forbidden between the build and the push is taken out.

The rules are the campaign's own, over the events since the build alone: an event can rule an item out, and what an
older one ruled out was never in the list. Memory is bounded by one user bucket's events.
"""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.profiles.fold import Caps, fold
from jobs.profiles.mails import mails_of_profiles
from jobs.profiles.pairs import NEVER, Pairs, pairs_of_profiles
from jobs.ranking.item_facts import item_facts
from jobs.ranking.rules import IN_LIST, exclusions, first_causes
from schemas.ranking_rules import RankingSettings
from schemas.tables import EVENTS

# A morning's events of one user; what is beyond is older than what is kept, and those are the safe side to forget.
_CAPS = Caps(views=1_000, states=1_000)

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LastLook:
    """What a chunk's lists are held against.

    `events` are those since the build, of any users of the bucket; None if the campaign does not ask for them. `until`
    is the instant that look-backs count from: up to when the events were read.
    """

    settings: RankingSettings
    events: pa.Table | None
    until: dt.datetime

    def still_fits(
        self,
        user: Int64s,
        item: Int64s,
        *,
        user_ids: pa.StringArray,
        catalog: pa.Table,
        place: npt.NDArray[np.int32],
        index: pa.StringArray,
    ) -> Bools:
        """Mark the recommended items that may still be mailed.

        Shapes: user (rows of user_ids) and item are parallel, as is the answer; place is the item of each catalog row.
        """
        facts = item_facts(catalog, index, self.settings, until=self.until, place=place)
        events = self._of(user_ids, index)
        if len(events) == 0:
            fits: Bools = facts.is_eligible[item]
            return fits
        recent = fold(None, events, index, caps=_CAPS, mailed=[])
        pairs, mails = pairs_of_profiles(recent), mails_of_profiles(recent, np.arange(len(recent)))
        row = pc.index_in(user_ids, value_set=recent["user_id"].combine_chunks())
        recent_user = pc.fill_null(row, -1).to_numpy(zero_copy_only=False).astype(np.int64)[user]
        found = exclusions(pairs, mails, self.settings.exclude, int(self.until.timestamp() * 1_000_000))
        causes = first_causes(recent_user, item, found, facts.dropped_by, facts.twins)
        may_be: Bools = causes.rule == IN_LIST
        if self.settings.candidates.kind == "back_in_stock":
            may_be &= ~_is_in(recent_user, item, pairs, _gone_from_wishlist(pairs))
        return may_be

    def _of(self, user_ids: pa.StringArray, index: pa.StringArray) -> pa.Table:
        """The events of the chunk's users; nobody was recommended what the index does not have yet."""
        if self.events is None:
            return EVENTS.schema.empty_table()
        known = pc.is_in(self.events["item_id"], value_set=index)
        return self.events.filter(pc.and_(pc.is_in(self.events["user_id"], value_set=user_ids), known))


def _gone_from_wishlist(pairs: Pairs) -> Bools:
    """Mark what was taken off the wishlist since, and not put back."""
    removed = pairs.last("wishlist_remove")
    gone: Bools = (removed > NEVER) & (removed > pairs.last("wishlist_add"))
    return gone


def _is_in(user: Int64s, item: Int64s, pairs: Pairs, chosen: Bools) -> Bools:
    size = int(max(item.max(initial=0), pairs.item.max(initial=0))) + 1
    keys = pairs.user[chosen] * size + pairs.item[chosen]
    inside: Bools = np.isin(user * size + item, keys) & (user >= 0)
    return inside
