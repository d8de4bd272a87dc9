"""What the ranking needs to know of a batch of users: what speaks for them, and what is ruled out for them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.profiles.mails import mails_of_profiles
from jobs.profiles.pairs import DAY, Pairs, pairs_of_profiles
from jobs.ranking.rules import Exclusion, exclusions, within
from schemas.ranking_rules import RankingSettings

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class UserBatch:
    """The rows of a profile table, judged at an instant: the end of the date that the lists are for.

    Shapes: interest (users, items), the weight of each recent item. `excluded`: what each rule rules out, in order.
    """

    user_ids: pa.ChunkedArray
    interest: sparse.csr_array
    excluded: list[Exclusion]

    @classmethod
    def of(cls, profiles: pa.Table, settings: RankingSettings, items: int, now: int) -> Self:
        """Read profile rows. Units: `now` in microseconds."""
        pairs = pairs_of_profiles(profiles)
        mails = mails_of_profiles(profiles, np.arange(len(profiles)))
        weight, chosen = _wishes(pairs, settings, now) or _interest(pairs, settings, now)
        return cls(
            profiles["user_id"],
            pairs.matrix(chosen, weight, items),
            exclusions(pairs, mails, settings.exclude, now),
        )

    def __len__(self) -> int:
        return len(self.user_ids)


def _interest(pairs: Pairs, settings: RankingSettings, now: int) -> tuple[npt.NDArray[np.float32], Bools]:
    """Weigh the most recent items of interest."""
    weights = np.array(settings.history.weights_by_type())
    return pairs.newest_interest(settings.history.items, weights, settings.history.half_life_days, now)


def _wishes(pairs: Pairs, settings: RankingSettings, now: int) -> tuple[npt.NDArray[np.float32], Bools] | None:
    """Weigh what is on the wishlist, where that is what competes: the later it was wished for, the more."""
    if settings.candidates.kind != "back_in_stock":
        return None
    wished = pairs.last("wishlist_add")
    chosen = pairs.is_wishlisted() & within(wished, settings.candidates.wished_days, now)
    weight = np.zeros(len(wished), np.float32)
    age_days = np.maximum(0, now - wished[chosen]) / DAY
    # Never quite nothing: an old wish has a place behind the later ones.
    weight[chosen] = np.maximum(np.exp2(-age_days / settings.history.half_life_days), 1e-6)
    return weight, chosen
