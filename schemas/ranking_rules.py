"""The rules by which a list is made: what speaks for an item, what rules it out, and what fills a short list.

A campaign is these settings and those of its mail. Look-backs are whole days; 0 turns a rule off and "for_ever" never
forgets. Unknown keys are errors.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.cold_start import ExposureSettings
from schemas.tables import CATALOG, EVENT_TYPES

# What a user did that counts as interest; removals and refunds only undo.
InterestType = Literal["view", "cart_add", "wishlist_add", "purchase"]
Weight = Annotated[float, Field(gt=0, le=100)]
LookBack = Annotated[int, Field(ge=0, le=3660)] | Literal["for_ever"]
ExclusionName = Literal["bought", "in_cart", "wishlisted", "seen", "mailed"]
# A user's exclusions in the order in which they are looked at: the first that applies is the reason that is given.
EXCLUSIONS: Final[tuple[ExclusionName, ...]] = ("bought", "in_cart", "wishlisted", "seen", "mailed")

# Profiles remember on which of so many days before its last mail an item was mailed: the bits of one signed number.
MAILED_WINDOW_DAYS: Final = 62

# A category is a path such as "Home > Kitchen > Knives"; "Home > Kitchen" stands for all that lies under it.
CATEGORY_SEPARATOR: Final = " > "
_PROPERTY: Final = "properties."
_NUMBERS: Final = ("price", "stock", "rating")
_TEXTS: Final = ("item_id", "title", "url", "image_url", "category", "brand", "currency")


class Settings(BaseModel):
    """Settings that refuse keys they do not know and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_field(name: str) -> None:
    if not name.removeprefix(_PROPERTY) or (not name.startswith(_PROPERTY) and name not in (*_NUMBERS, *_TEXTS)):
        raise ValueError(
            f"the catalog has no field {name!r}; it has {', '.join((*_TEXTS, *_NUMBERS))} and properties.NAME"
        )


class HistorySettings(Settings):
    """Which of a user's recent items speak for them, and how loudly."""

    items: Annotated[int, Field(ge=1, le=100)] = 10  # most recent items of interest that are used
    half_life_days: Annotated[float, Field(gt=0, le=3650)] = 30.0  # interest this old counts half
    weights: dict[InterestType, Weight] = {"view": 1.0, "cart_add": 2.0, "wishlist_add": 2.0, "purchase": 3.0}

    def weights_by_type(self) -> list[float]:
        """One weight per event type, in the order of EVENT_TYPES; 0 where there is none."""
        named = {str(name): weight for name, weight in self.weights.items()}
        return [named.get(name, 0.0) for name in EVENT_TYPES]


class CorrelatedItems(Settings):
    """Candidates that go with what a user was lately interested in.

    `neighbours`: how many of each item's correlated items speak. A user whose list comes up short with them is ranked
    over the whole table, so a list is short only where the whole table has no more.
    """

    kind: Literal["correlations"] = "correlations"
    neighbours: Annotated[int, Field(ge=1, le=1000)] = 50


class RestockedItems(Settings):
    """Candidates that a user has on the wishlist, that were sold out and can be bought again; latest wishes first."""

    kind: Literal["back_in_stock"]
    out_days: Annotated[int, Field(ge=1, le=31)] = 7  # sold out, or not in the catalog, on one of so many days before
    wished_days: Annotated[int, Field(ge=1, le=3660)] = 366  # wishes older than this are forgotten


Candidates = Annotated[CorrelatedItems | RestockedItems, Field(discriminator="kind")]


class TwinSettings(Settings):
    """Variants of one product: items with the same value of an item property, and the item whose id is that value."""

    property: Annotated[str, Field(min_length=1, max_length=255)]
    of: tuple[ExclusionName, ...] = ("bought",)  # the rules that rule out an item's twins as well

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        if not self.of or len(set(self.of)) < len(self.of):
            raise ValueError(f"of {list(self.of)} has to name at least one rule, and each once")
        return self


class ExcludeSettings(Settings):
    """What is never recommended to a user, each rule with its own look-back in days.

    `mailed`: the item was in the mails of at least `mailed_times` dates of the last `mailed_days`.
    """

    bought_days: LookBack = 366
    wishlisted_days: LookBack = 366
    in_cart_days: LookBack = 366
    seen_days: LookBack = 30
    mailed_days: Annotated[int, Field(ge=0, le=MAILED_WINDOW_DAYS)] = 0
    mailed_times: Annotated[int, Field(ge=1, le=100)] = 1
    twins: TwinSettings | None = None

    def look_back(self, rule: ExclusionName) -> LookBack:
        """How far a rule looks back."""
        found: LookBack = getattr(self, f"{rule}_days")
        return found


class Condition(Settings):
    """What one field of an item has to be: every test that is given has to hold.

    `field`: a column of the catalog or `properties.NAME`. `any_of` and `none_of` compare whole texts; of a category,
    the path itself and everything under it. Numbers that are kept as properties are read as such. A field without a
    value passes only `none_of` and `is_present = false`.
    """

    field: str
    any_of: tuple[str, ...] | None = None
    none_of: tuple[str, ...] | None = None
    at_least: float | None = None
    at_most: float | None = None
    is_present: bool | None = None

    @model_validator(mode="after")
    def _tests_something(self) -> Self:
        _check_field(self.field)
        tests = self.model_dump(exclude={"field"}, exclude_none=True)
        if not tests:
            raise ValueError(f"the condition on {self.field} tests nothing; give any_of, none_of, at_least, at_most …")
        if self.field in _NUMBERS and {"any_of", "none_of"} & set(tests):
            raise ValueError(f"{self.field} is a number; give at_least or at_most, not any_of or none_of")
        if self.field in _TEXTS and {"at_least", "at_most"} & set(tests):
            raise ValueError(f"{self.field} is a text; give any_of or none_of, not at_least or at_most")
        return self


class Conditions(Settings):
    """Conditions together: all of `all`, at least one of `any` (if there are some), and none of `none`."""

    all: tuple["Condition | Conditions", ...] = ()
    any: tuple["Condition | Conditions", ...] = ()
    none: tuple["Condition | Conditions", ...] = ()


class CatalogSettings(Settings):
    """Which items may be recommended at all.

    `include` and `exclude` name values by field: an item has to be among `include` in every field named there, and
    in none of `exclude`, which wins.
    """

    in_stock: bool = True
    min_price: Annotated[float, Field(ge=0)] | None = None
    max_price: Annotated[float, Field(ge=0)] | None = None
    min_rating: Annotated[float, Field(ge=0)] | None = None  # an item without a rating has less
    has_image: bool = False
    created_within_days: Annotated[int, Field(ge=0, le=3660)] = 0  # 0: of any age; an item without a date is old
    include: dict[str, tuple[str, ...]] = {}
    exclude: dict[str, tuple[str, ...]] = {}
    where: Conditions = Conditions()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in (*self.include, *self.exclude):
            _check_field(name)
            if name in _NUMBERS:
                raise ValueError(f"{name} is a number; use min_price, max_price, min_rating or catalog.where")
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise ValueError(f"min_price {self.min_price} is more than max_price {self.max_price}")
        return self


class DiversitySettings(Settings):
    """How many items of one kind a list holds at most (None: any number). Items without the field count alone."""

    max_per_category: Annotated[int, Field(ge=1, le=30)] | None = None
    category_level: Annotated[int, Field(ge=1, le=10)] = 1  # how many steps of the category's path make a kind
    max_per_brand: Annotated[int, Field(ge=1, le=30)] | None = None


class BoostSettings(Conditions):
    """Multiply the scores of the items that meet the conditions; several boosts multiply."""

    multiply_by: Annotated[float, Field(gt=0, le=100)]


FallbackStep = Literal["hybrid", "trending_in_categories", "trending"]


class FallbackSettings(Settings):
    """What fills a list when too few items are left: the steps in turn, each filling up to `slots`.

    `hybrid`: what suits the user's features; `trending_in_categories`: what is in demand in the categories of the
    user's recent items; `trending`: what is in demand. Every rule holds for these items too.
    """

    steps: tuple[FallbackStep, ...] = ("hybrid", "trending_in_categories", "trending")
    lists: Literal["short", "all"] = "short"  # short: those with fewer than min_items; all: those with fewer than slots

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        if len(set(self.steps)) < len(self.steps):
            raise ValueError(f"steps {list(self.steps)} has to name each step once")
        return self


class RankingSettings(Settings):
    """Everything that decides a list, and nothing that does not."""

    slots: Annotated[int, Field(ge=1, le=30)] = 6
    min_items: Annotated[int, Field(ge=1, le=30)] = 3
    history: HistorySettings = HistorySettings()
    candidates: Candidates = CorrelatedItems()
    exclude: ExcludeSettings = ExcludeSettings()
    catalog: CatalogSettings = CatalogSettings()
    boosts: Annotated[tuple[BoostSettings, ...], Field(max_length=20)] = ()
    diversity: DiversitySettings = DiversitySettings()
    fallback: FallbackSettings = FallbackSettings()
    exposure: ExposureSettings = ExposureSettings()

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        if self.min_items > self.slots:
            raise ValueError(f"min_items {self.min_items} is more than slots {self.slots}")
        if self.candidates.kind == "back_in_stock":
            if self.exclude.wishlisted_days != 0:
                raise ValueError("candidates are the wishlist, and exclude.wishlisted_days rules them out; set it to 0")
            if not self.catalog.in_stock:
                raise ValueError("candidates are items that are back in stock, and catalog.in_stock is false")
        return self

    @property
    def fallback_steps(self) -> tuple[FallbackStep, ...]:
        """The ladder's steps; a mail about what is back in stock has none: nothing else is what it says."""
        return self.fallback.steps if self.candidates.kind == "correlations" else ()

    @property
    def has_quota(self) -> bool:
        """Whether new items get a share of the slots; a mail about what is back in stock is about nothing else."""
        return (
            self.exposure.min_sends > 0 and self.exposure.max_slot_share > 0 and self.candidates.kind == "correlations"
        )

    def ranking_parameters(self) -> dict[str, object]:
        """What decides the recommendations' bytes, as it is after a round trip through JSON."""
        return self.model_dump(mode="json", include=set(RankingSettings.model_fields))


assert set(_NUMBERS) | set(_TEXTS) <= set(CATALOG.schema.names)  # noqa: S101 - a renamed column stops the import
