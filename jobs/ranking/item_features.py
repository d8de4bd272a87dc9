"""What an item is, as named features: the levels of its category, brand, price, properties and the title's words."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.list_columns import lengths
from jobs.ranking.categories import category_levels
from jobs.ranking.feature_matrix import Features, Named, features_of

# A price band is half a doubling: 10 to 14, 14 to 20, 20 to 28 … of whatever the currency is.
_BANDS_A_DOUBLING: Final = 2
_LONGEST_VALUE: Final = 80  # bytes of a property that can be a feature; a description is none
_LEAST_WORD: Final = 2  # letters; "a" and "x" tell nothing
# What more than half of the catalog has tells nothing about an item.
_MOST_COMMON: Final = 0.5


def item_features(catalog: pa.Table, *, min_items: int, max_features: int) -> Features:
    """Find the features of the catalog's items.

    Shapes: one row per row of the catalog.
    """
    every = np.arange(len(catalog), dtype=np.int64)
    price = catalog["price"].cast(pa.float64()).to_numpy()
    band = np.rint(_BANDS_A_DOUBLING * np.log2(np.maximum(price, 1e-4))).astype(np.int64)
    bands = pc.binary_join_element_wise(catalog["currency"], pa.array(band).cast(pa.string()), " ")
    level_row, level = category_levels(catalog["category"])
    parts = [
        Named.of("category", level_row, level),
        Named.of("brand", every, catalog["brand"]),
        Named.of("price", every, pa.chunked_array([bands]) if isinstance(bands, pa.Array) else bands),
        _words(catalog["title"]),
        *_properties(catalog["properties"]),
    ]
    most = max(int(len(catalog) * _MOST_COMMON), min_items)
    return features_of(parts, len(catalog), at_least=min_items, at_most=most, limit=max_features)


def _words(title: pa.ChunkedArray) -> Named:
    words = pc.split_pattern_regex(pc.utf8_lower(title), r"[^\p{L}\p{N}]+")
    flat = pa.chunked_array([chunk.flatten() for chunk in words.chunks], pa.string())
    row = np.repeat(np.arange(len(title), dtype=np.int64), lengths(words))
    long_enough = pc.greater_equal(pc.utf8_length(flat), _LEAST_WORD)
    return Named.of("word", row[long_enough.to_numpy(zero_copy_only=False)], flat.filter(long_enough))


def _properties(properties: pa.ChunkedArray) -> list[Named]:
    """Name each key and value of the free attributes; a value too long to be shared is none."""
    found, start = [], 0
    for chunk in properties.chunks:
        offsets = chunk.offsets.to_numpy()
        row = np.repeat(np.arange(len(chunk), dtype=np.int64), np.diff(offsets))
        # `keys` and `items` are those of the whole buffer: a slice has its own part, and a null map may span some too.
        there = pa.array(chunk.is_valid().to_numpy(zero_copy_only=False)[row])
        key, value = (child.slice(offsets[0], len(row)).filter(there) for child in (chunk.keys, chunk.items))
        row = row[there.to_numpy(zero_copy_only=False)] + start
        start += len(chunk)
        short = pc.less_equal(pc.fill_null(pc.binary_length(value), _LONGEST_VALUE + 1), _LONGEST_VALUE)
        named = pc.binary_join_element_wise(key.filter(short), value.filter(short), "=")
        found.append(Named.of("property", row[short.to_numpy(zero_copy_only=False)], pa.chunked_array([named])))
    return found
