"""How a campaign's correlations are trained, chosen, and kept from becoming worse.

Part of a campaign's file: `[training]`, `[training.backtest]` and one `[[training.candidates]]` per item model.
"""

import datetime as dt
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.item_models import DEFAULT_CANDIDATES, ItemModelSettings
from schemas.tables import EVENT_TYPES

InterestName = Literal["view", "cart_add", "wishlist_add", "purchase"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_WEEKDAYS: Final[tuple[Weekday, ...]] = (
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
)  # fmt: skip


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BacktestSettings(_Settings):
    """How candidates are compared: on what users did in the last days, with everything before to learn from.

    The sample keeps it to seconds and to one process, whatever the shop's size.
    """

    holdout_days: Annotated[int, Field(ge=1, le=60)] = 7  # the newest days, which the models do not see
    users: Annotated[int, Field(ge=100, le=10_000_000)] = 200_000  # users that are looked at; a fixed sample of them
    test_users: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000  # of these, users whose last days are predicted
    min_test_users: Annotated[int, Field(ge=10, le=100_000)] = 100  # with fewer there is no verdict


class TrainingSettings(_Settings):
    """What the correlations are learned from, by which model, how often, and what they must be as good as.

    The window starts at `window_days` and is widened day by day, to `max_window_days` at most, until it holds
    `min_records` records (one per user, item and kind of interest).
    """

    min_records: Annotated[int, Field(ge=1)] = 5_000_000
    window_days: Annotated[int, Field(ge=1, le=3660)] = 90
    max_window_days: Annotated[int, Field(ge=1, le=3660)] = 366
    allow_less: bool = False  # true: train on whatever the widest window holds

    weights: dict[InterestName, Annotated[float, Field(gt=0, le=100)]] = {
        "view": 1.0, "cart_add": 1.0, "wishlist_add": 1.0, "purchase": 1.0,
    }  # fmt: skip
    half_life_days: Annotated[float, Field(ge=0, le=3650)] = 0.0  # interest this old counts half; 0: it never fades
    items_per_user: Annotated[int, Field(ge=2, le=1_000)] = 100  # a user's most recent items; the older are left out
    min_support: Annotated[int, Field(ge=1, le=10_000)] = 2  # users in common that a pair needs; one is a coincidence
    depth: Annotated[int, Field(ge=20, le=1_000)] = 200  # correlated items kept per item, for ranking
    candidates: Annotated[tuple[ItemModelSettings, ...], Field(min_length=1, max_length=50)] = DEFAULT_CANDIDATES

    cadence: Literal["daily", "weekly"] = "daily"
    weekday: Weekday = "sunday"  # UTC day of the events that a weekly training is for

    max_quality_drop: Annotated[float, Field(ge=0, lt=1)] = 0.05  # share of its ndcg that a new model may lose
    min_gain: Annotated[float, Field(ge=0, le=1)] = 0.05  # relative gain that replaces a model, or an item in a list
    backtest: BacktestSettings = BacktestSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_window_days < self.window_days:
            raise ValueError(f"max_window_days {self.max_window_days} is less than window_days {self.window_days}")
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError("two candidates have the same settings")
        return self

    def weights_by_type(self) -> list[float]:
        """One weight per event type, in the order of EVENT_TYPES; 0 where there is none."""
        named = {str(name): weight for name, weight in self.weights.items()}
        return [named.get(name, 0.0) for name in EVENT_TYPES]

    def is_planned(self, date: dt.date) -> bool:
        """Tell whether the cadence has a training on a date."""
        return self.cadence == "daily" or date.weekday() == _WEEKDAYS.index(self.weekday)

    def table_parameters(self) -> dict[str, object]:
        """What decides the correlations' bytes, beside the model that the backtest chose."""
        return self.model_dump(
            mode="json",
            include={
                "min_records", "window_days", "max_window_days", "allow_less", "weights", "half_life_days",
                "items_per_user", "min_support", "depth",
            },
        )  # fmt: skip
