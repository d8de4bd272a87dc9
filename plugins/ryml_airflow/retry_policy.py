"""Which failures are worth another try: what waiting can cure, and nothing else."""

import datetime as dt
from typing import Any, Self

from airflow.sdk import RetryDecision, RetryPolicy

from schemas.errors import (
    ConfigError,
    EmptyPartitionError,
    GateError,
    MailAuthError,
    RejectedMailError,
    RetryableMailError,
    SchemaError,
)

# The same input gives the same answer: trying again only delays the person who has to look.
_PERMANENT = (ConfigError, SchemaError, EmptyPartitionError, GateError, RejectedMailError, MailAuthError)


class RymlRetryPolicy(RetryPolicy):
    """Fail at once on what no retry cures; wait as long as the provider asked; else the task's own retries."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        """Decide on one failed try."""
        if isinstance(exception, _PERMANENT):
            return RetryDecision.fail(f"{type(exception).__name__}: a retry would end the same way")
        if isinstance(exception, RetryableMailError) and exception.retry_after_seconds:
            return RetryDecision.retry(dt.timedelta(seconds=exception.retry_after_seconds), "as the provider asked")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Nothing to keep: the policy has no settings."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """Make it anew."""
        return cls()
