"""A campaign's settings: who gets how many items, by which rules, and when they are mailed.

One TOML file per campaign, versioned and deployed with the DAGs. Unknown keys and values out of bounds are errors,
all of them in one message.
"""

import datetime as dt
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.cold_start import ExposureSettings, HybridSettings, TrendingSettings
from schemas.errors import ConfigError
from schemas.layout import safe_name
from schemas.ranking_rules import RankingSettings
from schemas.training import TrainingSettings


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class Campaign(RankingSettings):
    """One campaign. `name` is the file's stem."""

    name: str
    title: Annotated[str, Field(min_length=1, max_length=80)]
    training: TrainingSettings = TrainingSettings()
    hybrid: HybridSettings = HybridSettings()
    trending: TrendingSettings = TrendingSettings()
    exposure: ExposureSettings = ExposureSettings()
    mail: MailSettings
    push: PushSettings = PushSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.name != safe_name(self.name):
            raise ValueError(f"the file's name {self.name!r} may hold only A-Z a-z 0-9 . _ -")
        return self

    def send_name(self, date: dt.date) -> str:
        """Name the single send of a date at the provider; one name is one send, for ever."""
        return f"ryml {self.name} {date.isoformat()}"


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
