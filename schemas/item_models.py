"""The settings of the item models: how the correlations between items are computed.

Every model ends as one items x items matrix cut to the best others of each item, so that ranking stays one sparse
product whichever is chosen. docs/models.md says what each is good for and what was measured.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Exponent = Annotated[float, Field(ge=0, le=2)]
# How much of popularity every item recommends beside its own: 0 none, 1 as much as everything else together.
Popularity = Annotated[float, Field(ge=0, le=100)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CooccurrenceModel(_Settings):
    """Degree-normalised co-occurrence: C = D_i^-a · Rᵀ · D_u^-b · R · D_i^-c, with a, b, c the three exponents.

    R holds the interactions (users x items), D_u and D_i the squared lengths of its rows and columns (the counts of
    interactions, where all weigh 1). Cosine is (½, 0, ½).
    """

    kind: Literal["cooccurrence"] = "cooccurrence"
    item_exponent: Exponent = 0.5  # a: how much an item's own popularity quietens what it says
    user_exponent: Exponent = 1.0  # b: how much less a user with many interactions counts
    other_exponent: Exponent = 0.2  # c: how much the popularity of the recommended item counts against it
    shrinkage: Annotated[float, Field(ge=0, le=10_000)] = 0.0  # added to D_i: rare items are trusted less
    popularity: Popularity = 0.0
    # How much is taken off an item for what the others on the list say of it already: C · (1 - sharpening · S), with S
    # the 100 best others of each item by the exponents (½, 1, ½), whose largest eigenvalue is 1.
    sharpening: Annotated[float, Field(ge=0, le=10)] = 0.0
    # The best others that are sharpened, whatever depth is asked for: a short list is then the head of a long one.
    sharpened: Annotated[int, Field(ge=20, le=10_000)] = 400


class EaseModel(_Settings):
    """The linear model that predicts each item from all others, in closed form, for catalogs small enough to invert.

    With a co-occurrence beside it, the two matrices are added, each divided by its mean row sum first.
    """

    kind: Literal["ease"] = "ease"
    regularisation: Annotated[float, Field(gt=0, le=10_000)] = 4.0  # in units of an item's mean squared length
    user_exponent: Exponent = 0.0  # how much less a user with many interactions counts
    popularity: Popularity = 0.0
    cooccurrence: CooccurrenceModel | None = None
    cooccurrence_share: Annotated[float, Field(ge=0, le=1)] = 0.0


ItemModelSettings = Annotated[CooccurrenceModel | EaseModel, Field(discriminator="kind")]

COSINE = CooccurrenceModel(user_exponent=0.0, other_exponent=0.5)
DEFAULT_CANDIDATES: tuple[CooccurrenceModel, ...] = (
    COSINE,
    CooccurrenceModel(user_exponent=0.5, other_exponent=0.5),
    CooccurrenceModel(),
    CooccurrenceModel(item_exponent=0.7),
    CooccurrenceModel(user_exponent=0.0, other_exponent=0.0, popularity=1.0),
)
