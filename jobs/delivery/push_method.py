"""By which method a plan is pushed: the one that it was frozen with, whatever the campaign's file says by now."""

from typing import Final

from jobs.delivery.run_context import Delivery
from jobs.lake.manifest import Manifest
from schemas.layout import Partition

CONTACTS: Final = "contacts"
MAIL_SEND: Final = "mail_send"


def method_of(plan: Manifest) -> str:
    """Read the method that a plan was made for."""
    return str(plan.parameters.get("method", CONTACTS))


def is_by_mail_send(delivery: Delivery) -> bool:
    """Say whether the run's plan is pushed by Mail Send.

    Raises: EmptyPartitionError if nothing was planned.
    """
    return (
        method_of(delivery.lake.manifest(Partition("chunks", delivery.run.send_date, delivery.run.campaign)))
        == MAIL_SEND
    )
