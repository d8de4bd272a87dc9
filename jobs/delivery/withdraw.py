"""The last look at who may be mailed: whoever was suppressed or erased since the plan leaves the run's list.

The list is exactly who is mailed, so that it is enough to take them off it; that the provider would drop them as well
is not relied upon. Contacts of erased people are deleted: a push that was under way may have made them anew.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.addresses import canonical_address
from jobs.delivery.client import ADDRESSES_PER_SEARCH, Contact
from jobs.delivery.people_book import Erased, erased, hashes_of, note_withdrawn
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.run_context import Delivery
from jobs.lake.manifest import Manifest
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.tables import MAILED_OUTCOMES

ERASED: Final = "erased"
# Two clocks, and a provider that shows what it heard a little later: asking for an hour more costs a page.
OVERLAP: Final = dt.timedelta(hours=1)
PULLED_AT: Final = "pulled_at"
_WAITS_SECONDS: Final = (0.0, 0.5, 2.0, 10.0, 60.0, 120.0)  # the removal is a job, the search eventually consistent


def withdraw_mails(delivery: Delivery, calls: ProviderCalls) -> int:
    """Have the provider drop the mails, handed over already, of those who must not be mailed any more; count them.

    Mail Send drops whoever is suppressed when a mail is due. Who unsubscribed since the plan is that already; who was
    erased is put on the campaign's unsubscribe group, which is the only way to take one mail out of a batch.
    Its requests are not repeated: the caller repeats the whole.
    """
    provider = delivery.provider
    group = provider.ensure_suppression_group(delivery.campaign.mail.suppression_group)
    suppressed = _suppressed(delivery, group)
    reasons, handed_over = _on_list(delivery, suppressed, erased(delivery.ledger))
    reasons = {address: why for address, why in reasons.items() if address in handed_over}
    if not reasons:
        return 0
    keys = hashes_of(delivery.ledger, reasons, "address")
    note_withdrawn(delivery.ledger, delivery.run, dict(zip(keys, reasons.values(), strict=True)))
    gone = [address for address, why in reasons.items() if why == ERASED and address not in suppressed]
    if gone:
        calls.write_once("suppress", f"{len(gone)} addresses", lambda: provider.suppress(group, gone))
    return len(reasons)


def withdraw(delivery: Delivery, calls: ProviderCalls, list_id: str) -> int:
    """Take everybody off the list who must not be mailed any more, and see that they are off; return how many were.

    May be repeated at any point. Its requests are not: the caller repeats the whole, so that what it goes by is fresh.
    Raises: GateError if somebody stays on the list.
    """
    provider = delivery.provider
    group = provider.ensure_suppression_group(delivery.campaign.mail.suppression_group)
    suppressed = _suppressed(delivery, group)
    reasons, unseen = _on_list(delivery, suppressed, erased(delivery.ledger))
    if not reasons:
        return 0
    # Written down first: whoever balances the books after a death in here has to know why the list is shorter.
    keys = hashes_of(delivery.ledger, reasons, "address")
    note_withdrawn(delivery.ledger, delivery.run, dict(zip(keys, reasons.values(), strict=True)))
    left: list[Contact] = []
    for seconds in _WAITS_SECONDS:
        calls.wait(seconds)
        found = list(_contacts(delivery, sorted(reasons)))
        # Who was delivered is a contact: as long as the search does not show them, it says nothing of their lists.
        unseen -= {contact.email.lower() for contact in found}
        left = [contact for contact in found if _stays(contact, list_id, reasons)]
        if not left and not unseen:
            return len(reasons)
        for is_erased in (False, True):
            ids = [one.id for one in left if (reasons[one.email.lower()] == ERASED) == is_erased]
            _remove(delivery, calls, list_id, ids, is_erased=is_erased)
    raise GateError(
        f"{len(left) + len(unseen)} people who were suppressed or erased since the plan are still on the list that "
        "would be mailed; nothing is sent. Look at the list at the provider, then run schedule_send again"
    )


def _suppressed(delivery: Delivery, group_id: int) -> dict[str, str]:
    """Ask who was suppressed since the plan: address -> a kind."""
    found = delivery.provider.suppressed_addresses(_since(delivery), group_id=group_id)
    return {canonical_address(address): kind for kind, address in found}


def _since(delivery: Delivery) -> dt.datetime | None:
    """From when on suppressions are new to the plan; None (all of them) where that was not kept."""
    planned = delivery.lake.find(Partition("suppressions", delivery.run.send_date, delivery.campaign.name))
    pulled_at = planned.metrics.get(PULLED_AT) if planned else None
    return dt.datetime.fromisoformat(pulled_at) - OVERLAP if pulled_at else None


def _on_list(delivery: Delivery, suppressed: dict[str, str], gone: Erased) -> tuple[dict[str, str], set[str]]:
    """Say of whom the plan mails, and must not any more, why (address -> reason); and which of them were delivered."""
    reasons: dict[str, str] = {}
    delivered: set[str] = set()
    if not suppressed and not len(gone):
        return reasons, delivered
    lake, run_ = delivery.lake, delivery.run
    plan = lake.manifest(Partition("chunks", run_.send_date, run_.campaign))
    receipts = lake.manifest(Partition("receipts", run_.send_date, run_.campaign))
    users, listed = lake.manifest(Partition("users", run_.send_date)), pa.array(sorted(suppressed), pa.string())
    for bucket in range(lake.buckets):
        people = _mailed(delivery, plan, users, bucket)
        ids, addresses = people["user_id"].combine_chunks(), people["email"].combine_chunks()
        is_gone = pa.array(gone.has(ids, addresses))
        may_not = pc.or_(is_gone, pc.is_in(addresses, value_set=listed))
        if not pc.any(may_not).as_py():
            continue
        for address, is_erased in zip(addresses.filter(may_not).to_pylist(), is_gone.filter(may_not), strict=True):
            reasons[address] = ERASED if is_erased.as_py() else suppressed[address]
        written = lake.read(receipts, bucket=bucket, columns=["user_id", "outcome"])
        is_stored = pc.is_in(written["outcome"], value_set=pa.array(MAILED_OUTCOMES))
        stored = written.filter(is_stored)["user_id"].combine_chunks()
        delivered.update(addresses.filter(pc.and_(may_not, pc.is_in(ids, value_set=stored))).to_pylist())
    return dict(sorted(reasons.items())), delivered


def _mailed(delivery: Delivery, plan: Manifest, users: Manifest, bucket: int) -> pa.Table:
    """The users of a bucket whom the plan mails. More than the receipts': a request whose answer was lost counts."""
    rows = delivery.lake.read(plan, bucket=bucket, columns=["user_id", "action"])
    chosen = rows.filter(pc.equal(rows["action"], "upsert"))["user_id"].combine_chunks()
    people = delivery.lake.read(users, bucket=bucket, columns=["user_id", "email"])
    people = people.filter(pc.is_in(people["user_id"], value_set=chosen))
    return people.filter(pc.is_valid(people["email"]))


def _contacts(delivery: Delivery, addresses: Sequence[str]) -> Iterator[Contact]:
    for part in _parts(addresses):
        yield from delivery.provider.contacts_by_email(part).values()


def _stays(contact: Contact, list_id: str, reasons: dict[str, str]) -> bool:
    return list_id in contact.list_ids or reasons[contact.email.lower()] == ERASED


def _remove(delivery: Delivery, calls: ProviderCalls, list_id: str, ids: Sequence[str], *, is_erased: bool) -> None:
    operation = "delete_contacts" if is_erased else "remove_from_list"
    for part in _parts(ids):

        def remove(part: list[str] = part) -> None:
            if is_erased:
                delivery.provider.delete_contacts(part)
            else:
                delivery.provider.remove_from_list(list_id, part)

        calls.write_once(operation, f"{len(part)} contacts", remove)


def _parts(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), ADDRESSES_PER_SEARCH):
        yield list(values[start : start + ADDRESSES_PER_SEARCH])
