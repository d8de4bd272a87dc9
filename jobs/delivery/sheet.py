"""What one chunk wants the provider to hold: one row per user, rendered when it is sent, with its receipt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery import payload
from jobs.delivery.payload import Body
from schemas.tables import RECEIPTS

Positions = npt.NDArray[np.int64]
Render = Callable[[Positions], pa.StringArray]
Column = tuple[str, str]
"""The provider's id of the field that a column is imported into, and the column's name."""

_FIRST_GUESS_BYTES = 1_500  # of a contact with six items of four fields; later guesses follow what was rendered


@dataclass(frozen=True)
class Sheet:
    """The rows of one chunk in plan order.

    Shapes: all have one entry per row. `lane` tells which of `lanes` (the lists that a request adds its contacts to) a
    row goes in; a request has rows of one lane. `outcome` is what a row is once it is confirmed. `render` gives JSON
    objects, or, with the `columns` of each lane, lines of a file.
    """

    chunk: int
    user_ids: pa.StringArray
    emails: pa.StringArray
    items: pa.ListArray
    outcome: pa.StringArray
    content: pa.Int64Array
    lane: npt.NDArray[np.int8]
    lanes: Sequence[Sequence[str]]
    render: Render
    columns: Sequence[Sequence[Column]] = ()

    def __len__(self) -> int:
        return len(self.user_ids)

    def columns_of(self, positions: Positions) -> Sequence[Column]:
        """The columns of the lane that some rows are of."""
        return self.columns[int(self.lane[positions[0]])]

    def first_body(self, positions: Positions, guess_bytes: float = _FIRST_GUESS_BYTES) -> Body:
        """Render as many rows as fit into one request, from the first on; the body counts them from 0.

        A little more is rendered than fits, never the whole chunk: memory holds one request. Where a request ends does
        not depend on the guess, so that a resumed push cuts as the one before did.
        """
        lists = self.lanes[int(self.lane[positions[0]])]
        while True:
            rows = min(int(payload.MAX_BYTES / guess_bytes * 1.02) + 1, payload.MAX_CONTACTS, len(positions))
            body = next(payload.cut_bodies(self.render(positions[:rows]), lists))
            if body.stop < rows or rows in (payload.MAX_CONTACTS, len(positions)):
                return body
            guess_bytes = body.size / body.stop  # these rows are smaller than those before: more of them fit

    def receipt(self, positions: Positions, refused: Positions | None = None, reason: str | None = None) -> pa.Table:
        """The receipt of a request's rows; `refused` ones are quarantined for the reason."""
        rows = pa.array(positions)
        outcome, reasons = self.outcome.take(rows), pa.nulls(len(positions), pa.string())
        if refused is not None:
            is_refused = pa.array(np.isin(positions, refused))
            outcome = pc.if_else(is_refused, "quarantined", outcome)
            reasons = pc.if_else(is_refused, pa.scalar(reason, pa.string()), reasons)
        return pa.table(
            {
                "user_id": self.user_ids.take(rows),
                "chunk": pa.array(np.full(len(positions), self.chunk), pa.int32()),
                "item": self.items.take(rows),
                "outcome": outcome,
                "reason": reasons,
                "content": self.content.take(rows),
            },
            schema=RECEIPTS.schema,
        )

    def find(self, user_ids: pa.ChunkedArray) -> Positions:
        """The rows of these users.

        Raises: ValueError if one is not in this chunk.
        """
        found = pc.index_in(user_ids, value_set=self.user_ids)
        if found.null_count:
            raise ValueError(f"{found.null_count} users of a receipt are not in chunk {self.chunk}")
        rows: Positions = found.to_numpy().astype(np.int64)
        return rows
