"""Which candidate is chosen, and whether it may ship: the model gate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.backtest.contest import label
from schemas.item_models import ItemModelSettings
from schemas.training import TrainingSettings

Status = Literal["accepted", "refused", "not judged"]


@dataclass(frozen=True)
class Verdict:
    """The chosen model and what becomes of it. `why` is a sentence for people."""

    status: Status
    chosen: ItemModelSettings
    why: str


def judge(
    ndcg: Mapping[ItemModelSettings, float],
    *,
    popularity: float,
    last_good: ItemModelSettings | None,
    test_users: int,
    training: TrainingSettings,
) -> Verdict:
    """Choose the candidate with the best ndcg, and refuse it if it is no good.

    `ndcg` holds every candidate and the model of the last good correlations, all learned from the same data. That model
    stays unless a candidate is better by more than `min_gain`; it is no candidate if the campaign does not name it.
    """
    candidates, least = training.candidates, training.backtest.min_test_users
    stays = last_good is not None and last_good in candidates
    if test_users < least:
        chosen = last_good if stays and last_good is not None else candidates[0]
        return Verdict(
            "not judged", chosen, f"{test_users} users took something up that could be found, {least} are needed"
        )
    chosen = max(candidates, key=lambda one: ndcg[one])  # the first of several equal ones
    if stays and last_good is not None and ndcg[chosen] <= ndcg[last_good] * (1 + training.min_gain):
        chosen = last_good
    found = ndcg[chosen]
    if not found > 0 or not found >= popularity:  # also what is not a number
        return Verdict(
            "refused", chosen, f"{label(chosen)} has ndcg {found:.4f}, the most popular items have {popularity:.4f}"
        )
    if last_good is not None and not found >= ndcg[last_good] * (1 - training.max_quality_drop):
        return Verdict(
            "refused",
            chosen,
            f"{label(chosen)} has ndcg {found:.4f}, that of the last good correlations, {label(last_good)}, has "
            f"{ndcg[last_good]:.4f}; at most {training.max_quality_drop:.0%} may be lost",
        )
    return Verdict("accepted", chosen, f"{label(chosen)} has ndcg {found:.4f}, the most popular items {popularity:.4f}")
