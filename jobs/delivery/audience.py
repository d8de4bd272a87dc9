"""Who of a bucket's users a campaign may mail, who is held out of it, and who gets which variant."""

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.addresses import canonical_addresses
from jobs.lake.buckets import keyed_hash
from schemas.audience import AudienceSettings, ExperimentSettings, SegmentSettings, UserCondition

_NUMBER: Final = r"^[+-]?[0-9]{1,15}(\.[0-9]{1,15})?$"

Bools = npt.NDArray[np.bool_]


def is_of_locale(users: pa.Table, settings: AudienceSettings) -> Bools:
    """Mark the users whose locale the campaign asks for; "de" takes de and de-AT, any case, either separator."""
    if not settings.locales:
        return np.ones(len(users), bool)
    locale = pc.replace_substring(pc.utf8_lower(pc.fill_null(users["locale"], "")), "_", "-")
    wanted = [asked.lower().replace("_", "-") for asked in settings.locales]
    found = pc.is_in(locale, value_set=pa.array(wanted))
    for language in wanted:
        found = pc.or_(found, pc.starts_with(locale, f"{language}-"))
    return _bools(found)


def is_in_segments(users: pa.Table, settings: SegmentSettings) -> Bools:
    """Mark the users whose properties meet all of `all`, one of `any` (if there are some) and none of `none`."""
    inside = np.ones(len(users), bool)
    for condition in settings.all:
        inside &= _meets(users, condition)
    if settings.any:
        inside &= np.logical_or.reduce([_meets(users, condition) for condition in settings.any])
    for condition in settings.none:
        inside &= ~_meets(users, condition)
    return inside


def is_held_out(addresses: pa.StringArray, settings: ExperimentSettings) -> Bools:
    """Mark the addresses that are not mailed, to compare with. A larger share keeps whom a smaller one had."""
    held_out: Bools = _places(addresses, f"holdout {settings.family}") < settings.holdout_share
    return held_out


def variants(addresses: pa.StringArray, settings: ExperimentSettings) -> npt.NDArray[Any]:
    """Give each address its variant's name; an empty text where the campaign has none.

    Not correlated with the holdout: the two have keys of their own.
    """
    if not settings.variants:
        return np.full(len(addresses), "", object)
    names = sorted(settings.variants)
    ends = np.cumsum([settings.variants[name] for name in names])
    places = _places(addresses, f"variant {settings.family}")
    return np.array(names, object)[np.minimum(np.searchsorted(ends, places, side="right"), len(names) - 1)]


def _places(addresses: pa.StringArray, purpose: str) -> npt.NDArray[np.float64]:
    """Put each address somewhere from 0 to 1, for ever.

    The key comes from the purpose alone, not from the ledger's secrets: whoever loses a ledger keeps the experiment.
    """
    if len(addresses) == 0:
        return np.empty(0)
    key = hashlib.sha256(f"ryml {purpose}".encode()).hexdigest()[:16]
    # The upper 53 bits: what a float holds exactly, so that 1.0 is never reached.
    upper = keyed_hash(canonical_addresses(addresses), key) >> np.uint64(11)
    return upper.astype(np.float64) / 2.0**53


def _meets(users: pa.Table, condition: UserCondition) -> Bools:
    values = pc.map_lookup(users["properties"].combine_chunks(), condition.property, "first")
    if condition.any_of:
        return _bools(pc.and_(pc.is_valid(values), pc.is_in(values, value_set=pa.array(condition.any_of))))
    is_number = pc.match_substring_regex(pc.fill_null(values, ""), _NUMBER)
    numbers = pc.if_else(is_number, values, pa.scalar(None, pa.string())).cast(pa.float64())
    inside = pc.is_valid(numbers)
    if condition.at_least is not None:
        inside = pc.and_(inside, pc.fill_null(pc.greater_equal(numbers, condition.at_least), False))
    if condition.at_most is not None:
        inside = pc.and_(inside, pc.fill_null(pc.less_equal(numbers, condition.at_most), False))
    return _bools(inside)


def _bools(values: Any) -> Bools:
    found: Bools = np.asarray(values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values)
    return found.astype(bool)
