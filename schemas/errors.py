"""The errors ryml raises, and the exit status that each gives a command.

A message says what is wrong (with the value), what was expected, and what to do. It never holds an e-mail
address or a secret; user ids appear only hashed.
"""


class RymlError(Exception):
    """Any condition that ryml foresaw. Commands print its message alone, without a traceback."""

    exit_status = 1


class ConfigError(RymlError):
    """A settings file, an argument or the machine is not as it has to be."""

    exit_status = 2


class SchemaError(RymlError):
    """Columns or types differ from the table's schema; the message lists every difference."""

    exit_status = 3


class EmptyPartitionError(RymlError):
    """An input that has to have rows has none, or its partition was never published."""

    exit_status = 4


class StorageError(RymlError):
    """A file in the lake is missing, torn or not the one that its manifest names."""

    exit_status = 5


class PublishConflictError(StorageError):
    """Another writer published the partition after this one had read it."""


class GateError(RymlError):
    """A check stopped the night before anything wrong could leave."""

    exit_status = 6


class MailError(RymlError):
    """The e-mail provider did not do what was asked."""

    exit_status = 7


class RetryableMailError(MailError):
    """Trying again later may help (rate limit, server error, time-out)."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, may_have_acted: bool = True) -> None:
        """Keep the provider's own word on when to come back, if it gave one, and whether it may have acted at all."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.may_have_acted = may_have_acted


class RejectedMailError(MailError):
    """The provider refused the request itself; the same request will be refused again."""


class BadContentMailError(RejectedMailError):
    """The provider refuses what the request holds; a part of it may be accepted."""


class TooLargeMailError(RejectedMailError):
    """The request is larger than the provider takes; halves of it may be accepted."""


class NotFoundMailError(RejectedMailError):
    """The provider does not know the thing that the request names."""


class MailAuthError(MailError):
    """The key is wrong, lacks a scope, or the account has no credits left."""
