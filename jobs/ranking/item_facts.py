"""What a campaign's rules say of each item, whoever the user: the filter that drops it, its boost, kinds and twins."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.item_index import to_items
from jobs.ranking.conditions import field_numbers, field_texts, is_among, meets_all
from schemas.ranking_rules import CATEGORY_SEPARATOR, RankingSettings
from schemas.tables import INSTANT

# In the order in which they are looked at: the first that drops an item is the reason that is given.
FILTERS: Final = (
    "not_in_catalog",
    "sold_out",
    "not_back_in_stock",
    "price",
    "rating",
    "no_image",
    "too_old",
    "not_included",
    "excluded",
    "conditions",
)
NO_FILTER: Final = -1
NO_KIND: Final = -1

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ItemFacts:
    """One entry per item of the index.

    `dropped_by`: a position in FILTERS, or NO_FILTER for an item that may be recommended. `boost` multiplies scores.
    `category`, `brand`, `twins`: codes of the item's kind for the diversity caps and of its group of twins, or NO_KIND.
    `path`: a position in `paths`, the distinct categories of the catalog, or NO_KIND.
    """

    dropped_by: npt.NDArray[np.int8]
    boost: npt.NDArray[np.float32]
    category: npt.NDArray[np.int32]
    brand: npt.NDArray[np.int32]
    twins: npt.NDArray[np.int32]
    path: npt.NDArray[np.int32]
    paths: tuple[str, ...]

    @property
    def is_eligible(self) -> Bools:
        """Which items may be recommended."""
        mask: Bools = self.dropped_by == NO_FILTER
        return mask

    def save(self, folder: Path) -> None:
        """Write the arrays for tasks to map."""
        for field in fields(self):
            values = getattr(self, field.name)
            if field.name == "paths":
                values = np.array(values, np.str_)
            np.save(folder / f"facts.{field.name}.npy", values)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what was written."""
        arrays: dict[str, Any] = {
            field.name: np.load(folder / f"facts.{field.name}.npy", mmap_mode="r", allow_pickle=False)
            for field in fields(cls)
        }
        return cls(**{**arrays, "paths": tuple(arrays["paths"].tolist())})


def item_facts(
    catalog: pa.Table,
    index: pa.StringArray,
    settings: RankingSettings,
    *,
    until: dt.datetime,
    was_out: pa.ChunkedArray | None = None,
    place: npt.NDArray[np.int32] | None = None,
) -> ItemFacts:
    """Judge every item of the index by the catalog of the day, whose end is `until`.

    `place`: the item of each catalog row, if that is known already.
    `was_out`: the ids that were sold out or not in the catalog lately, for campaigns of what is back in stock.
    """
    place = to_items(index, catalog["item_id"]).to_numpy() if place is None else place
    dropped_by = np.full(len(index), FILTERS.index("not_in_catalog"), np.int8)
    verdict = np.full(len(catalog), NO_FILTER, np.int8)
    for name, passes in _filters(catalog, settings, until, was_out):
        verdict[(verdict == NO_FILTER) & ~passes] = FILTERS.index(name)
    dropped_by[place] = verdict
    boost = np.ones(len(index), np.float32)
    for rule in settings.boosts:
        boost[place[meets_all(rule, catalog)]] *= np.float32(rule.multiply_by)

    def by_item(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        found = np.full(len(index), NO_KIND, np.int32)
        found[place] = codes
        return found

    categories = catalog["category"]
    path, paths = _codes(categories)
    return ItemFacts(
        dropped_by=dropped_by,
        boost=boost,
        category=by_item(_codes(_upper(categories, settings.diversity.category_level))[0]),
        brand=by_item(_codes(catalog["brand"])[0]),
        twins=by_item(_twins(catalog, settings)),
        path=by_item(path),
        paths=paths,
    )


def _filters(
    catalog: pa.Table, settings: RankingSettings, until: dt.datetime, was_out: pa.ChunkedArray | None
) -> Iterator[tuple[str, Bools]]:
    """Name each filter that is on, with the items that pass it."""
    rules = settings.catalog
    if rules.in_stock:
        yield "sold_out", field_numbers(catalog, "stock") > 0
    if was_out is not None:
        yield "not_back_in_stock", _bools(pc.is_in(catalog["item_id"], value_set=was_out.combine_chunks()))
    if rules.min_price is not None or rules.max_price is not None:
        price = field_numbers(catalog, "price")
        low, high = rules.min_price or 0.0, np.inf if rules.max_price is None else rules.max_price
        yield "price", (price >= low) & (price <= high)
    if rules.min_rating is not None:
        yield "rating", field_numbers(catalog, "rating") >= rules.min_rating
    if rules.has_image:
        yield "no_image", _bools(pc.match_substring_regex(catalog["image_url"], r"\S"))
    if rules.created_within_days:
        since = pa.scalar(until - dt.timedelta(days=rules.created_within_days), INSTANT)
        yield "too_old", _bools(pc.fill_null(pc.greater_equal(catalog["created_at"], since), False))
    if rules.include:
        yield "not_included", np.logical_and.reduce([_named(catalog, *pair) for pair in rules.include.items()])
    if rules.exclude:
        yield "excluded", ~np.logical_or.reduce([_named(catalog, *pair) for pair in rules.exclude.items()])
    yield "conditions", meets_all(rules.where, catalog)


def _named(catalog: pa.Table, field: str, values: tuple[str, ...]) -> Bools:
    return is_among(field_texts(catalog, field), values, is_path=field == "category")


def _codes(texts: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Number texts in byte order; NO_KIND for those that are missing."""
    values = texts.unique().drop_null()
    values = values.take(pc.sort_indices(values))
    codes = pc.fill_null(pc.index_in(texts, value_set=values), NO_KIND).to_numpy()
    # Without values there is no type to find missing texts by.
    return np.where(_bools(pc.is_valid(texts)), codes, NO_KIND).astype(np.int32), tuple(values.to_pylist())


def _upper(paths: pa.ChunkedArray, level: int) -> pa.ChunkedArray:
    """Cut category paths to their first `level` steps."""
    parts = pc.list_slice(pc.split_pattern(paths, CATEGORY_SEPARATOR), 0, level)
    return pc.binary_join(parts, CATEGORY_SEPARATOR)


def _twins(catalog: pa.Table, settings: RankingSettings) -> npt.NDArray[np.int32]:
    """Number the groups of twins: the items with one value of the property, and the item whose id is that value."""
    twins = settings.exclude.twins
    if twins is None:
        return np.full(len(catalog), NO_KIND, np.int32)
    values = field_texts(catalog, f"properties.{twins.property}")
    is_parent = pc.and_(pc.is_null(values), pc.is_in(catalog["item_id"], value_set=values.unique().drop_null()))
    return _codes(pc.if_else(is_parent, catalog["item_id"], values))[0]


def _bools(values: pa.ChunkedArray) -> Bools:
    mask: Bools = values.to_numpy()
    return mask
