"""The settings of the item models: how the correlations between items are computed.

Every model ends as one items x items matrix cut to the best others of each item, so that ranking stays one sparse
product whichever is chosen. docs/models.md says what each is good for and what was measured.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Exponent = Annotated[float, Field(ge=0, le=2)]


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
    min_support: Annotated[int, Field(ge=1, le=1_000)] = 1  # users that a pair must have in common


ItemModelSettings = Annotated[CooccurrenceModel, Field(discriminator="kind")]

COSINE = CooccurrenceModel(user_exponent=0.0, other_exponent=0.5)
DEFAULT_CANDIDATES: tuple[CooccurrenceModel, ...] = (
    COSINE,
    CooccurrenceModel(),
)
