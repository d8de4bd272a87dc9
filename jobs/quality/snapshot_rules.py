"""Rules that need a whole snapshot: ids that come twice, and addresses that belong to more than one user.

Rows wait in an unnamed temporary file (gone with the process) while their ids are compared by 64-bit hashes, so that
memory holds a few words per row. Two of 10 million different ids share a hash in one of 370,000 exports; both rows
would then be set aside.

- The same id in rows that are the same in every column: the first is used, the others are set aside.
- The same id in rows that differ: which one holds is not known, so none is used.
- One address, in its canonical form, of more than one user: each of them stays, without the address. Rows that are
  set aside as duplicates count here too: theirs may be the true one. So do addresses that no mail goes to, where a
  provider might take them for one that it does go to.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.buckets import keyed_hash
from jobs.quality.casts import Mask, as_mask, keep
from jobs.quality.quarantine import content_hashes, quarantine_rows
from jobs.quality.row_rules import POSITION, Checked
from schemas.tables import Table

_BAD_ADDRESS: Final = pa.field("bad_address", pa.bool_(), nullable=False)
_HASH_KEY: Final = "ryml snapshot id"
_DUPLICATE: Final = {"item_id": "duplicate_item", "user_id": "duplicate_user"}

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True)
class Settled:
    """Part of a snapshot after all rules. `addresses` lists the rows that are used without their address."""

    good: pa.Table
    quarantined: pa.Table
    addresses: pa.Table


class Snapshot:
    """The rows of one snapshot that passed the rules of single rows. A context manager: it holds a temporary file."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._id = table.key[0]
        self._schema = pa.schema([*table.schema, POSITION, _BAD_ADDRESS])
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self._spool = pa.ipc.new_stream(self._file, self._schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        self._ids: list[Hashes] = []
        self._emails: list[Hashes] = []
        self._has_email: list[Mask] = []

    def add(self, checked: Checked) -> None:
        """Take the good rows of one batch."""
        good = checked.good
        if good.num_rows == 0:
            return
        self._ids.append(keyed_hash(good.column(self._id), _HASH_KEY))
        if "email" in good.schema.names:
            emails = checked.address_keys
            self._emails.append(keyed_hash(emails.fill_null(""), _HASH_KEY))
            self._has_email.append(as_mask(emails.is_valid()))
        extra = [checked.positions, pa.array(checked.bad_address)]
        self._spool.write_table(pa.table([*good.columns, *extra], schema=self._schema).combine_chunks())

    def settle(self) -> Iterator[Settled]:
        """Give all rows, in their order, with what the whole snapshot says about them."""
        self._spool.close()
        ids = _joined(self._ids, np.uint64)
        dropped = self._duplicates(ids)
        collided = np.zeros(len(ids), np.bool_)
        if self._emails:
            emails, has_email = _joined(self._emails, np.uint64), _joined(self._has_email, np.bool_)
            # Users without an address share nothing: each gets a hash of its own, so that none is found twice.
            emails[~has_email] = ids[~has_email]
            shared = repeated(emails)
            shared = shared[has_email[shared]]
            collided[shared] = has_several(emails[shared], ids[shared])
        start = 0
        for rows in self._batches():
            part = slice(start, start + rows.num_rows)
            yield self._settled(rows, dropped[part], collided[part])
            start += rows.num_rows

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()
        self._file.close()

    def _batches(self) -> Iterator[pa.Table]:
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as spool:
            for rows in spool:
                yield pa.Table.from_batches([rows], self._schema)

    def _duplicates(self, ids: Hashes) -> Mask:
        """Mark the rows that are set aside because their id comes more than once."""
        dropped = np.zeros(len(ids), np.bool_)
        members = repeated(ids)
        if len(members):
            _, first, group = np.unique(ids[members], return_index=True, return_inverse=True)
            is_first = first[group] == np.arange(len(members))
            dropped[members] = has_several(ids[members], self._content(members)) | ~is_first
        return dropped

    def _content(self, members: Positions) -> Hashes:
        """Hash whole rows, those that are asked for (in ascending order)."""
        hashes, start = [], 0
        for rows in self._batches():
            inside = members[(members >= start) & (members < start + rows.num_rows)] - start
            hashes.append(content_hashes(rows.select(self._table.schema.names).take(pa.array(inside))))
            start += rows.num_rows
        return np.concatenate(hashes)

    def _settled(self, rows: pa.Table, dropped: Mask, collided: Mask) -> Settled:
        names = self._table.schema.names
        good = rows.select(names)
        positions = rows.column(POSITION.name)
        bad_address = rows.column(_BAD_ADDRESS.name).to_numpy()
        without_address = ~dropped & (bad_address | collided)
        reasons = pa.array(np.where(bad_address, "bad_email", "email_collision"), pa.string())
        if collided.any():
            place = names.index("email")
            emails = keep(good.column("email").combine_chunks(), ~collided)
            used = good.set_column(place, self._table.schema.field("email"), emails)
        else:
            used = good
        return Settled(
            good=used.filter(pa.array(~dropped)),
            quarantined=self._set_aside(good, positions, dropped, pa.repeat(_DUPLICATE[self._id], len(dropped))),
            addresses=self._set_aside(good, positions, without_address, reasons),
        )

    def _set_aside(self, rows: pa.Table, positions: pa.ChunkedArray, which: Mask, reasons: pa.Array) -> pa.Table:
        mask = pa.array(which)
        return quarantine_rows(
            self._table.name, rows.filter(mask), reasons.filter(mask), positions.filter(mask).combine_chunks()
        )


def repeated(hashes: Hashes) -> Positions:
    """Find the rows whose hash comes more than once, in ascending order."""
    in_order = np.sort(hashes)
    several = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    return np.flatnonzero(np.isin(hashes, several)) if len(several) else np.empty(0, np.int64)


def has_several(groups: Hashes, members: Hashes) -> Mask:
    """Mark the rows whose group has more than one distinct member."""
    order = np.lexsort((members, groups))
    same_group = groups[order][1:] == groups[order][:-1]
    number = np.concatenate([[0], np.cumsum(~same_group)]) if len(order) else np.empty(0, np.int64)
    changes = same_group & (members[order][1:] != members[order][:-1])
    several = np.bincount(number[1:][changes], minlength=len(order) + 1) > 0
    marked = np.zeros(len(order), np.bool_)
    marked[order] = several[number]
    return marked


def _joined(parts: list[npt.NDArray[Kind]], kind: type[Kind]) -> npt.NDArray[Kind]:
    """Join the parts and empty their list: at ten million users each copy is 80 MB."""
    joined = np.concatenate(parts) if parts else np.empty(0, kind)
    parts.clear()
    return joined
