"""A campaign's settings: who gets how many items, by which rules, and when they are mailed.

One TOML file per campaign, versioned and deployed with the DAGs. Unknown keys and values out of bounds are errors,
all of them in one message.
"""

import datetime as dt
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.audience import AudienceSettings, ExperimentSettings
from schemas.cold_start import HybridSettings, TrendingSettings
from schemas.delivery_gates import DeliveryGates
from schemas.errors import ConfigError
from schemas.last_look import LastLookSettings
from schemas.mail_fields import BLANK, DEFAULT_PREFIX, NEUTRAL
from schemas.mail_send import HOLD_MINUTES, MailSendSettings
from schemas.push_method import PushMethod
from schemas.ranking_rules import RankingSettings
from schemas.send_time import Hour, SendTime, Zone
from schemas.training import TrainingSettings

# It stands in paths, DAG ids and names of task groups.
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,59}")
START_SHARE: Final = 0.05  # of the full rate, where a ramp starts unless the campaign says
_BLANKS: Final = {"empty": NEUTRAL, "null": None, "dash": BLANK}


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MailSettings(_Settings):
    """When and as what the batch leaves."""

    hour: Hour = 8  # hour of the send, in `zone`
    zone: Zone = "UTC"  # of the IANA database, e.g. Europe/Berlin; summer time is followed
    subject: Annotated[str, Field(min_length=1, max_length=150)]
    suppression_group: Annotated[str, Field(min_length=1, max_length=30)]  # SendGrid: names up to 30 characters
    sender_id: Annotated[int, Field(ge=1)] = 1  # the verified sender's id at the provider
    live: bool = False  # true: may leave through a provider that is not the rehearsal provider
    # Whose account that is: the `user_id` that the provider has to answer the key with. Needed where live = true.
    account_id: Annotated[int, Field(ge=1)] | None = None
    max_lateness_minutes: Annotated[int, Field(ge=1, le=1440)] = 240
    approval: bool = False  # true: a person says yes in Airflow before the send, with the diff to yesterday before them
    approval_minutes: Annotated[int, Field(ge=1, le=1440)] = 120  # to answer in; silence until then sends nothing
    # A contact has one set of fields per prefix: campaigns must not share one, or the later push replaces what the
    # earlier one's mail shows. SendGrid knows 500 fields; a campaign of six slots takes 29.
    field_prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")] = DEFAULT_PREFIX
    may_be_empty: bool = False  # true: a night on which nobody gets anything is no error

    @property
    def send_time(self) -> SendTime:
        """Hour and zone."""
        return SendTime(hour=self.hour, zone=self.zone)


class PushSettings(_Settings):
    """How the users' content reaches the provider."""

    # contacts: written into contacts as JSON, some thousand users a request, and mailed by one single send. csv_import:
    # the same contacts as a compressed file for each chunk, for a first load. mail_send: in the mails themselves, at
    # most once; nothing is kept at the provider, and a request without an answer is never repeated (docs/mail.md).
    method: PushMethod = "contacts"
    chunk_users: Annotated[int, Field(ge=1, le=200_000)] = 50_000
    # The same of csv_import, where a chunk is a file: SendGrid takes a million rows in one.
    file_users: Annotated[int, Field(ge=1, le=1_000_000)] = 200_000
    ramp_minutes: Annotated[int, Field(ge=0, le=1440)] = 60
    # What the ramp rises from, and to. None: 5 % of the full rate, and what requests_per_second lets through. After the
    # ramp that limit alone sets the pace.
    start_users_per_second: Annotated[float, Field(gt=0)] | None = None
    full_users_per_second: Annotated[float, Field(gt=0)] | None = None
    # After the plan's start: what is not pushed by then expires, and its users are not mailed that day.
    deadline_minutes: Annotated[int, Field(ge=1, le=2880)] = 240
    requests_per_second: Annotated[float, Field(gt=0, le=10_000)] = 1.5  # SendGrid's last published figure
    # What stands in unused slots, and in all of a user who is cleared: what the provider takes for nothing. `empty`:
    # empty text. `null` (in a file the same), where it removes the value; `dash`: "-", where both leave the old one.
    clear_with: Literal["empty", "null", "dash"] = "empty"

    @property
    def blank(self) -> str | None:
        """What is written where there is nothing."""
        return _BLANKS[self.clear_with]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        start, full = self.start_users_per_second, self.full_users_per_second
        if start is not None and full is not None and start > full:
            raise ValueError(
                f"start_users_per_second {start:g} is more than full_users_per_second {full:g}; a ramp rises: lower "
                "the first, or raise the second"
            )
        return self

    def ramp_users_per_second(self, limit: float) -> tuple[float, float]:
        """What the ramp rises from, and to, where the rate limit lets `limit` users a second through."""
        start, full = self.start_users_per_second, self.full_users_per_second
        full = max(limit, start or 0.0) if full is None else full
        return START_SHARE * full if start is None else start, full

    def users_of_chunk(self, method: PushMethod) -> int:
        """How many users one task pushes by that method, at most."""
        return self.file_users if method == "csv_import" else self.chunk_users


class Campaign(RankingSettings):
    """One campaign. `name` is the file's stem."""

    name: str
    title: Annotated[str, Field(min_length=1, max_length=80)]
    audience: AudienceSettings = AudienceSettings()
    experiment: ExperimentSettings = ExperimentSettings()
    training: TrainingSettings = TrainingSettings()
    hybrid: HybridSettings = HybridSettings()
    trending: TrendingSettings = TrendingSettings()
    mail: MailSettings
    push: PushSettings = PushSettings()
    mail_send: MailSendSettings = MailSendSettings()
    last_look: LastLookSettings = LastLookSettings()
    gates: DeliveryGates = DeliveryGates()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the file's name {self.name!r} has to match {_NAME.pattern}: it becomes DAG ids")
        if self.mail.approval and self.mail.approval_minutes > self.mail.max_lateness_minutes:
            raise ValueError(
                f"mail.approval_minutes {self.mail.approval_minutes} is more than mail.max_lateness_minutes "
                f"{self.mail.max_lateness_minutes}: a live send that was approved at the end would be too late"
            )
        if self.mail.live and self.mail.account_id is None:
            raise ValueError("mail.live is true and mail.account_id is not given; name the account that may be used")
        if self.push.method == "mail_send":
            self._fits_mail_send()
        return self

    def _fits_mail_send(self) -> None:
        missing = [name for name in ("from_email", "postal_address") if getattr(self.mail_send, name) is None]
        if missing:
            raise ValueError(f"push.method is mail_send and mail_send.{' and mail_send.'.join(missing)} not given")
        leaves = self.push.deadline_minutes + HOLD_MINUTES
        if leaves > self.mail.max_lateness_minutes:
            raise ValueError(
                f"push.deadline_minutes {self.push.deadline_minutes}: with mail_send the mails leave {HOLD_MINUTES} "
                f"minutes after that, and mail.max_lateness_minutes is {self.mail.max_lateness_minutes}; a live send "
                f"would always be too late. Set push.deadline_minutes to what the push needs, e.g. 45"
            )

    def send_name(self, date: dt.date) -> str:
        """Name the single send of a date at the provider; one name is one send, for ever."""
        return f"ryml {self.name} {date.isoformat()}"

    def audience_parameters(self) -> dict[str, object]:
        """What decides who is mailed, beside the recommendations."""
        return self.model_dump(mode="json", include={"audience", "experiment"})


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


def clashes(campaigns: Iterable[Campaign]) -> dict[str, str]:
    """Say of each campaign that gets into another's way how it does; empty if none does."""
    settings = sorted(campaigns, key=lambda campaign: campaign.name)
    found: dict[str, str] = {}
    for position, first in enumerate(settings):
        for second in settings[position + 1 :]:
            if why := _clash(first, second):
                found[first.name] = found[second.name] = f"campaigns {first.name} and {second.name} {why}"
    return found


def _clash(first: Campaign, second: Campaign) -> str | None:
    if "mail_send" in (first.push.method, second.push.method):
        return None  # writes no contacts
    if first.mail.field_prefix == second.mail.field_prefix:
        return (
            f"share field_prefix {first.mail.field_prefix!r}; the later push would replace what the earlier one's mail "
            "shows: give one of them another prefix"
        )
    return None


def describe(error: ValidationError) -> str:
    """Say all mistakes of a settings file in one line: where, what is wrong, and the value found."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}, got {item['input']!r}"
        for item in error.errors(include_url=False)
    )
