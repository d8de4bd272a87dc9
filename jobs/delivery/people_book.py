"""People in the ledger: who was erased for good, and who was taken off a run's list just before its send.

Hashes only, keyed by a secret that lies in the ledger: without it nobody can be looked up, and a ledger that was lost
takes its tombstones with it. Back it up (docs/operations.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from jobs.delivery.addresses import ADDRESS_KEY, canonical_addresses
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.ledger_tables import tombstones, withdrawals
from jobs.lake.buckets import keyed_hash

Kind = Literal["address", "user"]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Erased:
    """The tombstones, in memory: of addresses and of user ids. Small: a few bytes a person who asked for it."""

    addresses: Int64s
    users: Int64s
    key: str

    def has(self, user_ids: pa.StringArray, addresses: pa.StringArray) -> npt.NDArray[np.bool_]:
        """Mark the erased among users; a null is nobody's address.

        Shapes: user_ids and addresses are parallel, as is the answer.
        """
        found = np.zeros(len(user_ids), bool)
        for values, hashes in ((user_ids, self.users), (addresses, self.addresses)):
            if len(values) and len(hashes):
                known = pc.is_valid(values).to_numpy(zero_copy_only=False)
                found |= known & np.isin(keyed_hash(pc.fill_null(values, ""), self.key).view(np.int64), hashes)
        return found

    def __len__(self) -> int:
        """Count the tombstones."""
        return len(self.addresses) + len(self.users)


def hashes_of(ledger: Ledger, texts: Iterable[str], kind: Kind) -> list[int]:
    """Hash addresses (in any spelling) or user ids with the ledger's key."""
    values = pa.array(list(texts), pa.string())
    if not len(values):
        return []
    values = canonical_addresses(values) if kind == "address" else values
    return [int(one) for one in keyed_hash(values, ledger.key(ADDRESS_KEY)).view(np.int64)]


def bury(ledger: Ledger, hashes: Mapping[Kind, Iterable[int]]) -> None:
    """Remember people as erased, for good; who is remembered already keeps the earlier instant."""
    with ledger.writing() as connection:
        for kind, values in hashes.items():
            for value in values:
                row = {"kind": kind, "hash": value, "erased_at": ledger.now_text()}
                ledger.insert_or_ignore(connection, tombstones, row)


def erased(ledger: Ledger) -> Erased:
    """Read all tombstones."""
    key = ledger.key(ADDRESS_KEY)
    with ledger.reading() as connection:
        rows = connection.execute(sa.select(tombstones.c.kind, tombstones.c.hash)).all()
    addresses, users = (np.array([row.hash for row in rows if row.kind == kind], np.int64) for kind in _KINDS)
    return Erased(addresses, users, key)


def note_withdrawn(ledger: Ledger, run: Run, reasons: Mapping[int, str]) -> None:
    """Write down who was taken off the run's list, and why: hash of the address -> reason."""
    with ledger.writing() as connection:
        for address_hash, reason in reasons.items():
            row = {**run.key, "address_hash": address_hash, "reason": reason, "at": ledger.now_text()}
            ledger.insert_or_ignore(connection, withdrawals, row)


def withdrawn(ledger: Ledger, run: Run) -> dict[str, int]:
    """Count who was taken off the run's list, by reason."""
    counted = sa.select(withdrawals.c.reason, sa.func.count().label("people")).where(*run.of(withdrawals))
    with ledger.reading() as connection:
        rows = connection.execute(counted.group_by(withdrawals.c.reason).order_by(withdrawals.c.reason)).all()
    return {row.reason: row.people for row in rows}


_KINDS: tuple[Kind, Kind] = ("address", "user")
