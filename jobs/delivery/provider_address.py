"""Where the provider is, and the options of every delivery job; quick to load."""

import argparse
import json
import os
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from jobs.command_line import add_ledger, job_parser
from jobs.delivery.client import MailProvider
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
        # The provider's library is loaded by those who talk to it, not by all who read the options.
        from jobs.delivery.sendgrid_client import SendGridProvider

        return SendGridProvider(api_key=self.api_key, host=self.host)


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
