"""When a plan is too strange to be pushed without a person's word."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class DeliveryGates(BaseModel):
    """Bands that a plan has to lie in. Of a plan outside, nothing is pushed and nobody is cleared or mailed.

    An empty or late input makes lists disappear: a great share of those who hold items would then be cleared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cleared_share_max: Share = 0.3  # of the users who hold items
    cleared_users_free: Annotated[int, Field(ge=0)] = 100  # so many may be cleared whatever their share
    audience_least: Annotated[float, Field(ge=0, le=1)] = (
        0.5  # times the median of the last seven sends, from the third on
    )
    audience_most: Annotated[float, Field(ge=1, le=1000)] = 2.0  # likewise
    # Hours from the end of the data's day to the push. A live provider only: a rehearsal may be of any day.
    data_age_hours_max: Annotated[float, Field(gt=0, le=8784)] = 36.0
    model_age_days_max: Annotated[int, Field(ge=0, le=366)] = 14  # of the correlations, at the data's day
    # Against the last plan of the week before, where both mail at least `compared_users_least`.
    compared_users_least: Annotated[int, Field(ge=1)] = 100
    changed_share_max: Share = 1.0  # of those who were mailed then and now: their lists differ
    category_shift_max: Share = 0.5  # of the places in all lists: what moved to another category
    top_item_rise_max: Share = 0.5  # how much greater the share of the users is that get one and the same item

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.audience_least >= self.audience_most:
            raise ValueError(f"audience_least {self.audience_least} is not below audience_most {self.audience_most}")
        return self
