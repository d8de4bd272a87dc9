"""Decide for each user of one bucket what the push does with them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.audience import is_held_out, is_in_segments, is_of_locale, variants
from jobs.delivery.people_book import Erased
from jobs.lake.buckets import keyed_hash
from jobs.lake.list_columns import flat, lengths, list_column
from schemas.audience import AudienceSettings, ExperimentSettings
from schemas.tables import CHUNKS


def plan_bucket(
    recommendations: pa.Table,
    users: pa.Table,
    mirror: pa.Table,
    suppressed: npt.NDArray[np.int64],
    *,
    erased: Erased,
    address_key: str,
    chunk_users: int,
    audience: AudienceSettings,
    experiment: ExperimentSettings,
    is_full: bool = False,
) -> pa.Table:
    """Give each user of any input one action and the reason for it.

    Grain:  one row per user, in byte order of the user id.
    Shapes: suppressed holds keyed hashes of addresses (bits of an unsigned one), in any order.
    The first that applies: erased, not in users, no address, unsubscribed, suppressed, of another locale, not in the
    segments (all withheld); has recommendations but is held out (withheld, with the items that it would have been, to
    compare with); has recommendations (upsert); held some until now (clear); neither (unchanged). Upserts and clears
    are cut into parts of `chunk_users`. An upsert says what the contact is known to hold, so that the push can leave
    content that is the same where it is; a full push (`is_full`) forgets that.
    """
    ids = pa.concat_tables([table.select(["user_id"]) for table in (recommendations, users, mirror)])["user_id"]
    ids = ids.combine_chunks().unique()
    ids = ids.take(pc.sort_indices(ids))
    in_users, in_recommendations, in_mirror = (_rows_of(ids, table) for table in (users, recommendations, mirror))
    known = in_users >= 0
    has_address = known & _at(in_users, pc.is_valid(users["email"]))
    subscribed = known & (_at(in_users, users["is_subscribed"]) | (not audience.subscribed))
    is_suppressed = np.zeros(len(ids), bool)
    addresses = pc.fill_null(users["email"].combine_chunks(), "")
    if len(addresses) and len(suppressed):
        hashed = np.isin(keyed_hash(addresses, address_key).view(np.int64), suppressed)
        is_suppressed = known & _at(in_users, hashed)
    # By the id as well: who was erased may still be held in the mirror, and be in no users table any more.
    is_erased = erased.has(ids, users["email"].combine_chunks().take(pa.array(in_users, mask=in_users < 0)))
    counts = lengths(recommendations["item"])
    has_items = (in_recommendations >= 0) & _at(in_recommendations, counts > 0)
    held_items = (in_mirror >= 0) & _at(in_mirror, lengths(mirror["item"]) > 0)

    of_locale = _at(in_users, is_of_locale(users, audience))
    in_segments = _at(in_users, is_in_segments(users, audience.segments))
    held_out = _at(in_users, is_held_out(addresses, experiment))

    cases = [
        (is_erased, "withheld", "erased"),
        (~known, "withheld", "not_in_users"),
        (~has_address, "withheld", "no_address"),
        (~subscribed, "withheld", "unsubscribed"),
        (is_suppressed, "withheld", "suppressed"),
        (~of_locale, "withheld", "other_locale"),
        (~in_segments, "withheld", "not_in_segments"),
        (has_items & held_out, "withheld", "holdout"),
        (has_items, "upsert", "has_recommendations"),
        (held_items, "clear", "nothing_any_more"),
    ]
    conditions = [condition for condition, _, _ in cases]
    action = np.select(conditions, [name for _, name, _ in cases], "unchanged")
    reason = np.select(conditions, [why for _, _, why in cases], "held_nothing")
    pushed = (action == "upsert") | (action == "clear")
    part = np.where(pushed, (np.cumsum(pushed) - 1) // chunk_users, -1)

    upserts = action == "upsert"
    compared = upserts | (reason == "holdout")
    items = _items(recommendations, counts, in_recommendations[compared])
    item_counts = np.where(compared, _at(in_recommendations, counts), 0)
    variant = np.where(upserts, np.append(variants(addresses, experiment), "")[in_users], "")
    return pa.table(
        {
            "user_id": ids,
            "action": pa.array(action, pa.string()),
            "reason": pa.array(reason, pa.string()),
            "item": list_column(CHUNKS, "item", items, item_counts),
            "held": _held(mirror, np.where(upserts & held_items, in_mirror, -1), is_full=is_full),
            "part": pa.array(part, pa.int32()),
            "variant": pa.array(variant, pa.string()),
        },
        schema=CHUNKS.schema,
    )


def _rows_of(ids: pa.StringArray, table: pa.Table) -> npt.NDArray[np.int64]:
    """Each id's row in the table, -1 where it has none."""
    found = pc.index_in(ids, value_set=table["user_id"].combine_chunks())
    rows: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return rows


def _held(mirror: pa.Table, rows: npt.NDArray[np.int64], *, is_full: bool) -> pa.Int64Array:
    """The digest of what the provider holds of each user; null where there is none, and for all of a full push."""
    if is_full:
        return pa.nulls(len(rows), pa.int64())
    return mirror["content"].combine_chunks().take(pa.array(rows, mask=rows < 0))


def _at(rows: npt.NDArray[np.int64], values: Any) -> npt.NDArray[Any]:
    """The value at each row; False or 0 where there is no row."""
    array = np.asarray(values)
    return np.append(array, array.dtype.type(0))[rows]


def _items(
    recommendations: pa.Table, counts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """All items of the chosen rows, in the rows' order."""
    start = np.concatenate(([0], np.cumsum(counts)))[rows]
    chosen = counts[rows]
    within = np.arange(int(chosen.sum())) - np.repeat(np.cumsum(chosen) - chosen, chosen)
    picked: npt.NDArray[np.int64] = flat(recommendations["item"])[np.repeat(start, chosen) + within]
    return picked
