"""What is in demand: each user's interest in an item, faded by its age, added up per category and for everybody.

Demand is counted in whole millionths, so that sums do not depend on their order. A user counts once per item and kind
of interest, so nobody makes an item trend by clicking on it all day.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.list_columns import list_column, rank_within
from jobs.profiles.fold import records_of_profiles
from jobs.ranking.categories import category_levels
from schemas.cold_start import TrendingSettings
from schemas.tables import EVENT_TYPES, TRENDING

EVERYTHING: Final = ""  # the key of the row that holds all categories and items without one
UNIT: Final = 1_000_000
_DAY: Final = 86_400_000_000  # microseconds

Int64s = npt.NDArray[np.int64]


def demand_of_profiles(profiles: pa.Table, settings: TrendingSettings, *, now: int, items: int) -> Int64s:
    """Add up the faded interest of a bucket's users by item.

    Shapes: (items,), in millionths. Units: `now` in microseconds; what is not before it is left out.
    """
    records = records_of_profiles(profiles, np.arange(len(profiles), dtype=np.int64))
    age = (now - records.last_at) / _DAY
    weight = np.array(settings.weights_by_type())[records.event_type]
    counted = np.flatnonzero((age > 0) & (age <= settings.max_age_days) & (weight > 0))
    # Newest first, so the first record of a user, item and kind is the last time; purchases have one for each time.
    kind = (records.user * items + records.item) * len(EVENT_TYPES) + records.event_type
    counted = counted[np.unique(kind[counted], return_index=True)[1]]
    faded = weight[counted] * np.exp2(-age[counted] / settings.half_life_days)
    demand = np.zeros(items, np.int64)
    np.add.at(demand, records.item[counted], np.rint(faded * UNIT).astype(np.int64))
    return demand


def trending_lists(demand: Int64s, item: Int64s, category: pa.ChunkedArray, *, depth: int) -> pa.Table:
    """Rank the items of the catalog by demand: one list for every level of every category, and one for all.

    Grain:  one row per category path with an item in demand, and one with the key "" for all; keys in byte order.
    Shapes: demand (items,); item (catalog rows,) and category, parallel.
    """
    level_row, level = category_levels(category)
    rows = np.concatenate((np.arange(len(item)), level_row))
    everything = pa.array([EVERYTHING] * len(item), pa.string())
    keys = pa.chunked_array([everything, *level.chunks], pa.string()).combine_chunks().dictionary_encode()
    order = pc.sort_indices(keys.dictionary).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    group, candidate = place[keys.indices.to_numpy()], item[rows]
    wanted = demand[candidate] > 0
    group, candidate = group[wanted], candidate[wanted]
    ranked = np.lexsort((candidate, -demand[candidate], group))
    ranked = ranked[rank_within(group[ranked]) < depth]
    group, candidate = group[ranked], candidate[ranked]
    found, counts = np.unique(group, return_counts=True)
    return pa.table(
        {
            "key": keys.dictionary.take(pa.array(order)).take(pa.array(found)),
            "item": list_column(TRENDING, "item", candidate, counts),
            "score": list_column(TRENDING, "score", (demand[candidate] / UNIT).astype(np.float32), counts),
        },
        schema=TRENDING.schema,
    )
