"""How items and users without history are served: the hybrid model, what is in demand, and a quota for new items.

Parts of a campaign's file: `[hybrid]`, `[trending]` and `[exposure]`.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.tables import EVENT_TYPES
from schemas.training import InterestName

Weight = Annotated[float, Field(gt=0, le=100)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HybridSettings(_Settings):
    """How the hybrid model is trained, and where its neighbours stand beside those of co-occurrence.

    Training takes `epochs` x `max_interactions` steps at most, whatever the shop's size. A shop with more interactions
    is sampled by users: what is learned is what words, categories and brands go together, not users or items.
    """

    components: Annotated[int, Field(ge=8, le=256)] = 32  # numbers of a vector
    epochs: Annotated[int, Field(ge=1, le=100)] = 10  # passes over the interactions
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.05  # too high a one diverges, which is refused
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1  # of the first vectors and the order of the interactions
    threads: Annotated[int, Field(ge=1, le=64)] = 1  # with more, no two trainings give the same vectors
    max_interactions: Annotated[int, Field(ge=1_000, le=100_000_000)] = 100_000  # of more, users are sampled

    min_items: Annotated[int, Field(ge=2, le=1_000)] = 2  # items that have to share a feature; one teaches nothing
    min_users: Annotated[int, Field(ge=2, le=100_000)] = 20  # users that have to share a feature
    max_features: Annotated[int, Field(ge=100, le=1_000_000)] = 50_000  # of items; the most common ones
    max_combinations: Annotated[int, Field(ge=1, le=100_000)] = 5_000  # of users' features; the most common ones
    list_items: Annotated[int, Field(ge=10, le=1_000)] = 100  # items kept per combination

    little_support: Annotated[int, Field(ge=0, le=100_000)] = 20  # items with fewer users get the hybrid's neighbours
    enough_support: Annotated[int, Field(ge=1, le=10_000)] = 5  # users in common from which a pair speaks for itself

    def model_parameters(self) -> dict[str, object]:
        """What decides the bytes of the model's tables; the rule of merging is not part of it."""
        return self.model_dump(mode="json", exclude={"little_support", "enough_support"})


class TrendingSettings(_Settings):
    """What counts as being in demand: each user's interest counts once per item and kind, and fades."""

    half_life_days: Annotated[float, Field(gt=0, le=365)] = 7.0  # interest this old counts half
    max_age_days: Annotated[int, Field(ge=1, le=366)] = 60  # older interest does not count at all
    # What each kind of interest counts.
    weights: dict[InterestName, Weight] = {"view": 1.0, "cart_add": 2.0, "wishlist_add": 2.0, "purchase": 3.0}
    list_items: Annotated[int, Field(ge=10, le=1_000)] = 100  # items kept per category and for all

    def weights_by_type(self) -> list[float]:
        """One weight per event type, in the order of EVENT_TYPES; 0 where there is none."""
        named = {str(name): weight for name, weight in self.weights.items()}
        return [named.get(name, 0.0) for name in EVENT_TYPES]


class ExposureSettings(_Settings):
    """The quota of new items: each is in at least `min_sends` mails within `within_days`, as far as there is room.

    `max_slot_share` bounds what all of them take of a night's slots; `min_similarity` says who is close enough. It
    decides lists, so it is part of the ranking's settings.
    """

    min_sends: Annotated[int, Field(ge=0, le=1_000_000)] = 0  # mails that a new item has to be in; 0: no quota
    within_days: Annotated[int, Field(ge=1, le=60)] = 7  # counted back from the date of the list
    max_slot_share: Annotated[float, Field(ge=0, le=0.5)] = 0.05  # of the slots of a night, new items together
    new_within_days: Annotated[int, Field(ge=1, le=60)] = 14  # an item is new for so many days
    min_similarity: Annotated[float, Field(gt=0, le=1)] = 0.5  # of the item and one of the user's recent items (cosine)

    @model_validator(mode="after")
    def _quota_ends_with_newness(self) -> Self:
        if self.within_days > self.new_within_days:
            raise ValueError(
                f"within_days {self.within_days} is more than new_within_days {self.new_within_days}: "
                "an item that is no longer new gets no quota"
            )
        return self
