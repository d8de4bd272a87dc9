"""Who may be mailed by a campaign, who is kept out of it to compare with, and who gets which variant of it."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.ranking_rules import Settings

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Share = Annotated[float, Field(gt=0, le=1)]


class UserCondition(Settings):
    """One property of a user has one of these values, or is a number from `at_least` to `at_most`.

    A user without the property, or with another text where a number is asked for, does not meet it.
    """

    property: Annotated[str, Field(min_length=1, max_length=100)]
    any_of: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        is_range = self.at_least is not None or self.at_most is not None
        if bool(self.any_of) == is_range:
            raise ValueError(f"property {self.property!r} needs either any_of, or at_least and at_most")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is more than at_most {self.at_most:g}")
        return self


class SegmentSettings(Settings):
    """Conditions over a user's properties: all of `all`, at least one of `any` (if there are some), none of `none`."""

    all: tuple[UserCondition, ...] = ()
    any: tuple[UserCondition, ...] = ()
    none: tuple[UserCondition, ...] = ()

    @property
    def conditions(self) -> tuple[UserCondition, ...]:
        """Every condition."""
        return (*self.all, *self.any, *self.none)


class AudienceSettings(Settings):
    """Who may be mailed. Whoever the provider suppresses never is, whatever stands here."""

    # false: only for a shop whose subscriptions are kept at the provider, and come back as suppressions
    subscribed: bool = True
    locales: tuple[Annotated[str, Field(min_length=1, max_length=35)], ...] = ()  # "de" takes de-AT too; empty: all
    segments: SegmentSettings = SegmentSettings()


class ExperimentSettings(Settings):
    """Who is not mailed, to compare with, and what share gets which variant.

    Both are hashes of the address with a key that `family` names: campaigns of one family have the same holdout, and
    nobody changes sides while the shares stay. A larger holdout share only adds people to it.
    """

    family: Name = "ryml"
    holdout_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    variants: dict[Name, Share] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(self.variants.values())
        if self.variants and not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"the shares of variants add up to {total:g}; expected 1")
        return self
