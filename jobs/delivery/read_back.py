"""Look at a random sample of contacts at the provider, and compare them with what the receipts say they hold."""

import base64
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.client import ADDRESSES_PER_SEARCH
from jobs.delivery.run_context import Delivery
from jobs.lake.manifest import Manifest
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.mail_fields import BLANK, CONTENT, EXPECTED, NEUTRAL, RUN, own_field, slot_field

_WAITS_SECONDS: Final = (0.0, 2.0, 10.0, 60.0)  # the search is eventually consistent
_EMPTY: Final = (None, NEUTRAL, BLANK)


def check_sample(delivery: Delivery, receipts: Manifest) -> int:
    """Compare up to a hundred delivered contacts, drawn by the date; return how many were looked at.

    Each has to hold the date, the digests, and nothing in the first slot that its items leave empty: a provider that
    passes over empty values would leave an item of another day there, under the right digest.

    Raises: GateError if one does not hold what it was confirmed to hold.
    """
    sample = _sample(delivery, receipts)
    prefix, date = delivery.campaign.mail.field_prefix, delivery.run.send_date.isoformat()
    run_field, content_field, expected_field = (own_field(name, prefix) for name in (RUN, CONTENT, EXPECTED))
    titles = [own_field(slot_field(slot, "title"), prefix) for slot in range(1, delivery.campaign.slots + 1)]
    calls, wrong = delivery.calls(), list(sample)
    for seconds in _WAITS_SECONDS if sample else ():
        calls.wait(seconds)
        found = calls.repeat(lambda: delivery.provider.contacts_by_email(list(sample)))
        wrong = [
            address
            for address, (digest, items) in sample.items()
            if address not in found
            or found[address].custom_fields.get(run_field) != date
            or found[address].custom_fields.get(content_field) != digest
            or found[address].custom_fields.get(expected_field) != digest
            or any(found[address].custom_fields.get(title) not in _EMPTY for title in titles[items : items + 1])
        ]
        if not wrong:
            return len(sample)
    if wrong:
        raise GateError(
            f"{len(wrong)} of {len(sample)} contacts that were read back do not hold what their import jobs confirmed; "
            "nothing is sent. Look at them at the provider; plan the next night with --full if somebody else wrote them"
        )
    return 0


def _sample(delivery: Delivery, receipts: Manifest) -> dict[str, tuple[str, int]]:
    """Draw delivered users; give address -> the digest that the contact must hold, and how many items.

    Buckets are visited in a drawn order until the sample is full: a large night reads one of them, a small one
    reads all, and so every contact.
    """
    draw = np.random.default_rng(delivery.run.send_date.toordinal())
    users = delivery.lake.manifest(Partition("users", delivery.run.send_date))
    sample: dict[str, tuple[str, int]] = {}
    for bucket in draw.permutation(sorted({entry.bucket for entry in receipts.files})).tolist():
        rows = delivery.lake.read(receipts, bucket=bucket, columns=["user_id", "outcome", "content", "item"])
        rows = rows.filter(pc.equal(rows["outcome"], "delivered"))
        rows = rows.take(pa.array(draw.permutation(len(rows))[: ADDRESSES_PER_SEARCH - len(sample)]))
        people = delivery.lake.read(users, bucket=bucket, columns=["user_id", "email"])
        where = pc.index_in(rows["user_id"], value_set=people["user_id"].combine_chunks())
        addresses = people["email"].take(where).to_pylist()
        digests = [base64.urlsafe_b64encode(_high_bytes(one)).decode() for one in rows["content"].to_pylist()]
        held = zip(digests, pc.list_value_length(rows["item"]).to_pylist(), strict=True)
        sample.update(zip(addresses, held, strict=True))
        if len(sample) >= ADDRESSES_PER_SEARCH:
            break
    return sample


def _high_bytes(content: int) -> bytes:
    return content.to_bytes(8, "big", signed=True)[:6]
