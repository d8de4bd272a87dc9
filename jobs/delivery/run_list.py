"""The run's contact list at the provider: made once, and a sign that the ledger is as old as the provider's state."""

from jobs.delivery.run_context import Delivery
from schemas.errors import GateError


def ensure_run_list(delivery: Delivery) -> str:
    """Give the id of the list that the run's users join, making it on first use.

    Raises: GateError if the provider has it and the ledger never made it: then the ledger was lost, or is a copy from
    before the push, and what it says of this run is not so.
    """
    known = delivery.ledger.list_id(delivery.run)
    if known is not None:
        return known
    name = delivery.campaign.send_name(delivery.run.send_date)
    book, calls = delivery.book, delivery.calls()
    if not book.has_begun("create_list"):
        found = calls.repeat(lambda: delivery.provider.find_list(name))
        # Asked again: another worker may have begun, and made the list, between the two questions.
        if found is not None and not book.has_begun("create_list"):
            raise lost_ledger(delivery, f"the list {name!r}")
    list_id, ticket = calls.write("create_list", name, lambda: delivery.provider.ensure_list(name))
    book.end_call(ticket, "ok", list_id)
    book.settle_list(list_id)
    return list_id


def lost_ledger(delivery: Delivery, found: str) -> GateError:
    """Say that the provider knows more of a run than the ledger."""
    return GateError(
        f"the provider has {found}, which this ledger never made: it was lost, or is a copy from before; nothing more "
        f"of {delivery.run.campaign} {delivery.run.send_date} leaves. Restore the ledger, or run reconcile_ledger"
    )
