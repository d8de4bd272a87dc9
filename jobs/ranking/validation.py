"""Folds for choosing a model: parts of the training data that are held back in the way that the test was."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from jobs.lake.mixing import GAMMA, mix

HELD_BACK = 0.2  # the share of the interactions that a fold is measured on
# Of these users the mean recall of one model is known to about ±0.003 (its standard deviation over users is 0.2), and
# the difference of two much better, for they are measured on the same users.
FOLD_USERS = 5_000
# A fold with fewer users is too noisy alone.
FEW_USERS = 2_000
# Of a user's interactions the newest are used: their pairs grow with the square.
ITEMS_PER_USER = 1_000


class Weighting(BaseModel):
    """How much one interaction weighs, by how often and how long ago a user showed interest in the item."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repeats: bool = False  # true: 1 + ln(times); false: once is as good as often
    # Interest this old counts half, as a share of the time that the data spans; 0: it never fades.
    half_life: Annotated[float, Field(ge=0, le=10)] = 0.0


ONCE = Weighting()


@dataclass(frozen=True)
class Interactions:
    """Distinct pairs of user and item, in order of user and item, with how often and when last.

    Units: last_at in any unit that grows with time; None where there are no times.
    """

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    last_at: npt.NDArray[np.int64] | None
    shape: tuple[int, int]

    @classmethod
    def of(
        cls,
        user: npt.NDArray[np.int64],
        item: npt.NDArray[np.int64],
        at: npt.NDArray[np.int64] | None,
        shape: tuple[int, int],
        times: npt.NDArray[np.int64] | None = None,
    ) -> Self:
        """Fold rows into distinct pairs."""
        key = user * shape[1] + item
        pairs, place = np.unique(key, return_inverse=True)
        count = np.bincount(place, times, minlength=len(pairs)).astype(np.int64)
        last = None
        if at is not None:
            last = np.full(len(pairs), np.iinfo(np.int64).min)
            np.maximum.at(last, place, at)
        return cls(pairs // shape[1], pairs % shape[1], count, last, shape)

    def keep(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """Keep some of the pairs."""
        last = None if self.last_at is None else self.last_at[chosen]
        return replace(self, user=self.user[chosen], item=self.item[chosen], times=self.times[chosen], last_at=last)

    def capped(self, items_per_user: int) -> Self:
        """Keep each user's newest pairs (without times: some, spread evenly over their items)."""
        counts = np.bincount(self.user, minlength=self.shape[0])
        if counts.max(initial=0) <= items_per_user:
            return self
        newest = _scatter(self.item) if self.last_at is None else -self.last_at
        return self.keep(_place_in_user(self.user, newest) < items_per_user)

    def matrix(self, weighting: Weighting = ONCE) -> sparse.csr_array:
        """Lay the pairs out as users x items, float32."""
        weight = np.ones(len(self.user))
        if weighting.repeats:
            weight += np.log(self.times)
        if weighting.half_life and self.last_at is not None and len(self.last_at):
            age = self.last_at.max() - self.last_at
            weight *= 0.5 ** (age / max(weighting.half_life * age.max(), 1.0))
        indptr = np.concatenate(([0], np.cumsum(np.bincount(self.user, minlength=self.shape[0]))))
        # Weights that have faded to nothing would be zeros, which are no interaction.
        return sparse.csr_array(
            (
                np.maximum(weight, 1e-6).astype(np.float32),
                self.item.astype(np.int32),
                indptr.astype(np.int32 if len(self.user) < 2**31 else np.int64),
            ),
            shape=self.shape,
        )


@dataclass(frozen=True)
class Fold:
    """What a candidate learns from, and what it has to find for which users.

    Shapes: truth (users, items) holds ones; it has rows for the measured users only, in the order of `users`.
    """

    learn: Interactions
    users: npt.NDArray[np.int64]
    truth: sparse.csr_array


HeldBack = Literal["newest", "newest of each user", "any"]


def folds(train: Interactions, held_back: HeldBack) -> list[Fold]:
    """Hold back parts of the training data: its newest fifth, or a fifth of each user's items, the newest or any.

    Where few users are held back, two parts more: earlier ones by time, other ones at random. Without times: any.
    """
    first = _fold(train, held_back, number=0)
    if len(first.users) >= FEW_USERS:
        return [first]
    more = [_fold(train, held_back, number=number) for number in (1, 2)]
    return [fold for fold in (first, *more) if len(fold.users)]


def _fold(train: Interactions, held_back: HeldBack, *, number: int) -> Fold:
    if held_back == "newest" and train.last_at is not None:
        at = np.sort(train.last_at)
        # By time the newest fifth; then the fifth before half of that, and so on back.
        until = at[int((len(at) - 1) * (1 - number * HELD_BACK / 2))]
        since = at[int((len(at) - 1) * (1 - number * HELD_BACK / 2 - HELD_BACK))]
        held = (train.last_at >= since) & (train.last_at <= until) & (train.last_at > at[0])
        learned = train.last_at < since
    elif held_back == "newest of each user" and train.last_at is not None:
        # The newest; then those before the newest, and so on back. What is newer than those is not learned either.
        drawn, place = _drawn(train.user, HELD_BACK, number)[train.user], _place_in_user(train.user, -train.last_at)
        held = (place >= number * drawn) & (place < (number + 1) * drawn)
        learned = place >= (number + 1) * drawn
    else:
        held = share_of_each_user(train.user, train.item, HELD_BACK, number)
        learned = ~held
    learn, rest = train.keep(learned), train.keep(held)
    known = np.bincount(learn.user, minlength=train.shape[0]) > 0
    wanted = np.flatnonzero((np.bincount(rest.user, minlength=train.shape[0]) > 0) & known)
    if len(wanted) > FOLD_USERS:
        wanted = np.sort(wanted[np.argsort(_scatter(wanted), kind="stable")[:FOLD_USERS]])
    return Fold(learn, wanted, rest.matrix()[wanted])


def share_of_each_user(
    user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], share: float, number: int
) -> npt.NDArray[np.bool_]:
    """Draw a share of each user's distinct items, never all of them; the number names the draw.

    Half an item is drawn for half of the users, so that users with few items are held back as often as others.
    """
    return _place_in_user(user, _scatter(_scatter(user + number * 7_919) ^ item)) < _drawn(user, share, number)[user]


def _drawn(user: npt.NDArray[np.int64], share: float, number: int) -> npt.NDArray[np.float64]:
    """Say how many of each user's items are held back."""
    counts = np.bincount(user)
    chance = (_scatter(np.arange(len(counts)) + number * 1_000_003) >> 11) / 2.0**53 + 0.5
    drawn: npt.NDArray[np.float64] = np.minimum(np.floor(counts * share + chance), counts - 1)
    return drawn


def _place_in_user(user: npt.NDArray[np.int64], key: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count each pair's place among its user's, by key; ties by place in the array."""
    order = np.lexsort((key, user))
    counts = np.bincount(user)
    place = np.empty(len(user), np.int64)
    place[order] = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def _scatter(number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Give each number another that looks drawn at random, the same on every machine."""
    return mix(number.astype(np.uint64) + GAMMA).view(np.int64)
