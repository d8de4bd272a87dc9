"""What every delivery job needs to know of its run: lake, campaign, ledger and provider, from a job's options."""

import argparse
import datetime as dt
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from jobs.command_line import add_ledger, job_parser
from jobs.delivery.client import MailProvider
from jobs.delivery.ledger import Claim, Ledger, Run
from jobs.delivery.mail_book import MailBook
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.request_book import RequestBook
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.delivery.timing import REAL_TIME, Timing, utc_now
from jobs.lake.lake import Lake
from schemas.campaign import Campaign, load_campaign
from schemas.errors import ConfigError

PROVIDER_VARIABLE = "AIRFLOW_CONN_SENDGRID_DEFAULT"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ProviderAddress:
    """Where the provider is and the key to it. The key never shows in a log or a message."""

    host: str
    api_key: str = field(repr=False)

    @classmethod
    def from_environment(cls, variable: str) -> Self:
        """Read an Airflow connection (JSON) from an environment variable: keys are never arguments."""
        try:
            connection = json.loads(os.environ[variable])
            return cls(host=connection["host"], api_key=connection["password"])
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(
                f"environment variable {variable} holds no connection; expected JSON with host and password, e.g. "
                '{"conn_type": "http", "host": "http://127.0.0.1:8085", "password": "<key>"}'
            ) from error

    @property
    def is_rehearsal(self) -> bool:
        """True for this machine's own rehearsal provider, from which no mail ever leaves."""
        return urlsplit(self.host).hostname in _LOOPBACK

    def connect(self) -> MailProvider:
        """Open a client; nothing is sent yet."""
        return SendGridProvider(api_key=self.api_key, host=self.host)


@dataclass(frozen=True)
class Delivery:
    """One campaign's delivery of one date."""

    lake: Lake
    campaign: Campaign
    run: Run
    ledger: Ledger
    provider: MailProvider
    run_id: str
    timing: Timing = REAL_TIME

    @property
    def book(self) -> RequestBook:
        """The run's requests and calls."""
        return RequestBook(self.ledger, self.run)

    @property
    def mails(self) -> MailBook:
        """The same of a run of Mail Send, and its batch."""
        return MailBook(self.ledger, self.run)

    def calls(self, claim: Claim | None = None) -> ProviderCalls:
        """Make calls at the provider; those of a claimed chunk keep the run's pace and end at its deadline."""
        if claim is None:
            return ProviderCalls(self.book, self.timing)
        pace, deadline = self.campaign.push.requests_per_second, self.ledger.deadline(self.run)
        return ProviderCalls(self.book, self.timing, claim, deadline, pace, self.provider.rate_limit)

    @classmethod
    def open(
        cls, *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress
    ) -> Self:
        """Open everything that a delivery job works with; refuse a live provider that the campaign does not name.

        Raises: ConfigError before the first request if the campaign is not live, and before the first that changes
        something if the key is another account's.
        """
        settings = load_campaign(campaign)
        if not (provider.is_rehearsal or settings.mail.live):
            raise ConfigError(
                f"{provider.host} is a live provider and campaign {settings.name} has live = false; nothing was sent. "
                "Going live takes live = true and the account_id in the campaign, the key in the connection, and a "
                "scheduled run"
            )
        opened = cls(
            lake=Lake.open(lake),
            campaign=settings,
            run=Run(settings.name, date),
            ledger=Ledger(ledger, utc_now),
            provider=provider.connect(),
            run_id=run_id,
        )
        if not provider.is_rehearsal:
            opened.check_account()
        return opened

    def check_account(self) -> None:
        """Ask the provider whose key this is.

        Raises: ConfigError if it is not the account that the campaign names.
        """
        expected, found = self.campaign.mail.account_id, self.calls().repeat(self.provider.account_id)
        if found != expected:
            raise ConfigError(
                f"the key in the connection is of account {found}, campaign {self.campaign.name} names {expected}; "
                "nothing was changed or sent. Put the other account's key into the connection, or correct account_id"
            )


def delivery_parser(doc: str | None) -> argparse.ArgumentParser:
    """Start a delivery job's options."""
    parser = job_parser(doc, campaign=True)
    add_ledger(parser)
    parser.add_argument(
        "--provider",
        type=ProviderAddress.from_environment,
        default=PROVIDER_VARIABLE,
        metavar="VARIABLE",
        help=f"environment variable with the provider's connection (default {PROVIDER_VARIABLE})",
    )
    return parser
