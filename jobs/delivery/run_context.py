"""What every delivery job needs to know of its run: lake, campaign, ledger and provider, from a job's options."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jobs.delivery.client import MailProvider
from jobs.delivery.ledger import Claim, Ledger, Run
from jobs.delivery.mail_book import MailBook
from jobs.delivery.provider_address import ProviderAddress, delivery_parser
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.request_book import RequestBook
from jobs.delivery.timing import REAL_TIME, Timing, utc_now
from jobs.lake.lake import Lake
from schemas.campaign import Campaign, load_campaign
from schemas.errors import ConfigError

__all__ = ["Delivery", "ProviderAddress", "delivery_parser"]


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
