"""A campaign's settings: who gets how many items, by which rules, and when they are mailed.

One TOML file per campaign, versioned and deployed with the DAGs. Unknown keys and values out of bounds are errors,
all of them in one message.
"""

import datetime as dt
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.cold_start import ExposureSettings, HybridSettings, TrendingSettings
from schemas.errors import ConfigError
from schemas.layout import safe_name
from schemas.tables import EVENT_TYPES
from schemas.training import TrainingSettings

# What a user did that counts as interest; removals and refunds only undo.
InterestType = Literal["view", "cart_add", "wishlist_add", "purchase"]
Weight = Annotated[float, Field(gt=0, le=100)]
LookBackDays = Annotated[int, Field(ge=0, le=3660)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HistorySettings(_Settings):
    """Which of a user's recent items speak for them, and how loudly."""

    items: Annotated[int, Field(ge=1, le=100)] = 10  # most recent items of interest that are used
    half_life_days: Annotated[float, Field(gt=0, le=3650)] = 30.0  # interest this old counts half
    weights: dict[InterestType, Weight] = {"view": 1.0, "cart_add": 2.0, "wishlist_add": 2.0, "purchase": 3.0}

    def weights_by_type(self) -> list[float]:
        """One weight per event type, in the order of EVENT_TYPES; 0 where there is none."""
        named = {str(name): weight for name, weight in self.weights.items()}
        return [named.get(name, 0.0) for name in EVENT_TYPES]


class ExcludeSettings(_Settings):
    """What is never recommended to a user, each with its look-back in days (0: the rule is off)."""

    bought_days: LookBackDays = 366
    wishlisted_days: LookBackDays = 366
    in_cart_days: LookBackDays = 366
    seen_days: LookBackDays = 30


class CatalogSettings(_Settings):
    """Which items may be recommended at all."""

    in_stock: bool = True


class MailSettings(_Settings):
    """When and as what the batch leaves."""

    hour: Annotated[int, Field(ge=0, le=23)] = 8  # UTC hour of the send
    subject: Annotated[str, Field(min_length=1, max_length=150)]
    suppression_group: Annotated[str, Field(min_length=1, max_length=30)]  # SendGrid: names up to 30 characters
    sender_id: Annotated[int, Field(ge=1)] = 1  # the verified sender's id at the provider
    live: bool = False  # true: may leave through a provider that is not the rehearsal provider
    max_lateness_minutes: Annotated[int, Field(ge=1, le=1440)] = 240


class PushSettings(_Settings):
    """How the contacts reach the provider."""

    chunk_users: Annotated[int, Field(ge=1, le=200_000)] = 50_000
    ramp_minutes: Annotated[int, Field(ge=0, le=1440)] = 60
    requests_per_second: Annotated[float, Field(gt=0, le=10_000)] = 1.5  # SendGrid's last published figure


class Campaign(_Settings):
    """One campaign. `name` is the file's stem."""

    name: str
    title: Annotated[str, Field(min_length=1, max_length=80)]
    slots: Annotated[int, Field(ge=1, le=30)] = 6
    min_items: Annotated[int, Field(ge=1, le=30)] = 3
    history: HistorySettings = HistorySettings()
    exclude: ExcludeSettings = ExcludeSettings()
    catalog: CatalogSettings = CatalogSettings()
    training: TrainingSettings = TrainingSettings()
    hybrid: HybridSettings = HybridSettings()
    trending: TrendingSettings = TrendingSettings()
    exposure: ExposureSettings = ExposureSettings()
    mail: MailSettings
    push: PushSettings = PushSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.min_items > self.slots:
            raise ValueError(f"min_items {self.min_items} is more than slots {self.slots}")
        if self.name != safe_name(self.name):
            raise ValueError(f"the file's name {self.name!r} may hold only A-Z a-z 0-9 . _ -")
        return self

    def send_name(self, date: dt.date) -> str:
        """Name the single send of a date at the provider; one name is one send, for ever."""
        return f"ryml {self.name} {date.isoformat()}"

    def ranking_parameters(self) -> dict[str, object]:
        """What decides the recommendations' bytes (and nothing that does not)."""
        return self.model_dump(include={"slots", "min_items", "history", "exclude", "catalog"})


def load_campaign(path: Path) -> Campaign:
    """Read a campaign's file.

    Raises: ConfigError naming the file and everything that is wrong in it.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return Campaign(name=path.stem, **data)
    except FileNotFoundError as error:
        raise ConfigError(f"campaign file {path} does not exist; campaigns are TOML files in dags/campaigns") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"campaign file {path} is not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"campaign file {path}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Say all mistakes of a settings file in one line: where, what is wrong, and the value found."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}, got {item['input']!r}"
        for item in error.errors(include_url=False)
    )
