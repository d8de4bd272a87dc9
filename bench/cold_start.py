"""How well items and users without history are served: the hybrid model beside popularity, on real data, split by time.

The last fifth of the purchases (by time) is the test. An item is cold with fewer than five events before; a user is
cold with none, and so is every tenth user (by a hash), whose history is withheld from training. Recall@20 is the
share of a user's test items that stand in their list of 20; what they bought before is masked; the mean is over users
with such items.

  all      the user's cold test items, ranked among all items
  cold     the user's cold test items, ranked among the cold items
  users    all test items of cold users

Run:  make bench-cold [DATA=../shared/data]
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.lake.buckets import keyed_hash
from jobs.lake.list_columns import rank_within
from jobs.ranking.hybrid import fit
from jobs.ranking.item_features import item_features
from jobs.ranking.item_vectors import whole_vectors
from jobs.ranking.metrics import measure
from jobs.ranking.pairs_told_apart import pairs_told_apart
from jobs.ranking.starter_items import suitability
from jobs.ranking.user_features import combination_matrix, combinations, shared_features
from schemas.cold_start import HybridSettings, TrendingSettings
from schemas.tables import CATALOG, PROPERTIES

K = 20
COLD_EVENTS = 5
_TEST_SHARE = 0.2
_WITHHELD = 10  # one user in so many
_HASH_KEY = "ryml bench cold!"

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One data set: who bought what before and after the split, and what is known of items and users.

    Shapes: train and test (users, items); events, age (items,): events before the split, days since the last one.
    """

    catalog: pa.Table
    users: pa.Table
    train: sparse.csr_array
    test: sparse.csr_array
    events: npt.NDArray[np.int64]
    trending: npt.NDArray[np.float64]

    @property
    def cold(self) -> npt.NDArray[np.bool_]:
        return self.events < COLD_EVENTS


def _read(path: Path) -> pa.Table:
    """Read a file, every text and category as a string."""
    table = pq.read_table(path)
    kinds = [
        pa.string() if pa.types.is_large_string(f.type) or pa.types.is_dictionary(f.type) else f.type
        for f in table.schema
    ]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _map_column(table: pa.Table, names: list[str]) -> pa.Array:
    """Keep some columns as a map, without the nulls."""
    columns = [_texts(table[name]).to_pylist() for name in names]
    rows = [[(n, v) for n, v in zip(names, row, strict=True) if v is not None] for row in zip(*columns, strict=True)]
    return pa.array(rows if names else [[]] * len(table), PROPERTIES)


def _online_retail(items: pa.Table) -> dict[str, object]:
    return {
        "title": pc.fill_null(items["description"], ""),
        "category": pa.nulls(len(items), pa.string()),
        "brand": pa.nulls(len(items), pa.string()),
        "price": items["median_price"],
        # Articles that differ in the letter behind the number are one article in several colours.
        "properties": _map_column(pa.table({"article": pc.utf8_slice_codeunits(items["item_id"], 0, 5)}), ["article"]),
    }


def _complete_journey(items: pa.Table) -> dict[str, object]:
    levels = [pc.fill_null(items[name], "?") for name in ("department", "product_category", "product_type")]
    return {
        "title": pc.fill_null(items["product_type"], ""),
        "category": pc.binary_join_element_wise(*levels, " > "),
        "brand": pc.binary_join_element_wise(_texts(items["brand"]), items["manufacturer_id"], " "),
        "price": pa.array(np.ones(len(items))),
        "properties": _map_column(items, ["package_size"]),
    }


CATALOGS = {"online-retail": _online_retail, "completejourney-sample": _complete_journey}


def read_case(folder: Path) -> Case:
    """Read a folder of ../shared/data and split it."""
    items, people, events = (_read(folder / f"{name}.parquet") for name in ("items", "users", "events"))
    events = events.filter(pc.and_(events["user_id"].is_valid(), pc.equal(events["event_type"], "purchase")))
    events = events.filter(pc.is_in(_texts(events["item_id"]), value_set=_texts(items["item_id"])))
    items = items.filter(pc.is_in(_texts(items["item_id"]), value_set=_texts(events["item_id"]).unique()))
    items = items.sort_by("item_id")
    columns = {"item_id": _texts(items["item_id"]), **CATALOGS[folder.name](items)}
    columns |= {
        "currency": pa.array(["GBP"] * len(items)), "stock": pa.array(np.ones(len(items), np.int32)),
        "url": pa.array([""] * len(items)), "image_url": pa.array([""] * len(items)),
    }  # fmt: skip
    catalog = pa.table({f.name: columns.get(f.name, pa.nulls(len(items), f.type)) for f in CATALOG.schema})
    texts = [(f.name, f.type if pa.types.is_string(f.type) else catalog[f.name].type) for f in CATALOG.schema]
    catalog = catalog.cast(pa.schema(texts))

    user_ids = _texts(events["user_id"]).unique().sort()
    known = people.take(pc.index_in(user_ids, value_set=_texts(people["user_id"])))
    attributes = [name for name in people.column_names if name != "user_id"]
    users = pa.table({"locale": pa.nulls(len(user_ids), pa.string()), "properties": _map_column(known, attributes)})
    user = pc.index_in(_texts(events["user_id"]), value_set=user_ids).to_numpy()
    item = pc.index_in(_texts(events["item_id"]), value_set=columns["item_id"].combine_chunks()).to_numpy()
    at = events["ts"].cast(pa.int64()).to_numpy()
    cut = np.sort(at)[int(len(at) * (1 - _TEST_SHARE))]
    withheld = (keyed_hash(pa.chunked_array([user_ids]), _HASH_KEY) % np.uint64(_WITHHELD) == 0)[user]
    before, after = (at < cut) & ~withheld, at >= cut
    shape = (len(user_ids), len(items))
    train, test = _ones(user[before], item[before], shape), _ones(user[after], item[after], shape)
    test = sparse.csr_array(test - test.multiply(train))
    test.eliminate_zeros()
    half_life = TrendingSettings().half_life_days * 86_400e6
    faded = np.bincount(item[before], np.exp2(-(cut - at[before]) / half_life), minlength=len(items))
    return Case(catalog, users, train, test, np.bincount(item[before], minlength=len(items)), faded)


def _ones(row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_array:
    matrix = sparse.coo_array((np.ones(len(row), np.float32), (row, column)), shape=shape).tocsr()
    matrix.data[:] = 1
    return matrix


class Models:
    """Every model as scores of some users for all items, larger is better."""

    def __init__(self, case: Case, settings: HybridSettings) -> None:
        self.case = case
        began = time.perf_counter()
        features = item_features(case.catalog, min_items=settings.min_items, max_features=settings.max_features)
        active = np.flatnonzero(np.diff(case.train.indptr))
        known = shared_features(case.users.take(pa.array(active)), min_users=settings.min_users)
        texts = combinations(case.users, known)
        user_features = combination_matrix(texts, known).matrix
        train = case.train[active]
        if train.nnz > settings.max_interactions:
            order = np.argsort(keyed_hash(pa.array([str(n) for n in active]), _HASH_KEY), kind="stable")
            train, active = train[order], active[order]
            kept = int(np.searchsorted(train.indptr, settings.max_interactions, side="right")) - 1
            train, active = train[:kept], active[:kept]
        model = fit(sparse.csr_array(train), features.matrix, user_features[active], settings)
        self.vectors = whole_vectors(features.matrix @ model.item_vectors)
        self.fit_seconds = time.perf_counter() - began
        self.interactions = train.nnz
        self.features = features.matrix.shape[1]
        self.told_apart = pairs_told_apart(train, self.vectors)
        self._unit = self.vectors.astype(np.float32) / 4000
        self._suits = suitability(user_features, model, features.matrix, case.trending)

    def popularity(self, users: npt.NDArray[np.int64]) -> Scores:
        return np.tile(self.case.events.astype(np.float32), (len(users), 1))

    def trending(self, users: npt.NDArray[np.int64]) -> Scores:
        return np.tile(self.case.trending.astype(np.float32), (len(users), 1))

    def hybrid(self, users: npt.NDArray[np.int64]) -> Scores:
        """The items closest to what the user bought; for users without history, what suits their features."""
        bought = self.case.train[users]
        close: Scores = (bought @ self._unit) @ self._unit.T
        without = np.diff(bought.indptr) == 0
        close[without] = self._suits[users[without]]
        return close

    def chance(self, users: npt.NDArray[np.int64]) -> Scores:
        return np.random.default_rng(1).random((len(users), self.case.train.shape[1]), np.float32)


def _best(scores: Scores) -> sparse.csr_array:
    """The first 20 of each row, ties by item; sorts only what can be among them."""
    edge = np.partition(scores, scores.shape[1] - K, axis=1)[:, scores.shape[1] - K, None]
    row, item = np.nonzero((scores >= edge) & (scores > -np.inf))
    order = np.lexsort((item, -scores[row, item], row))
    order = order[rank_within(row[order]) < K]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row[order], minlength=len(scores)))))
    return sparse.csr_array((np.ones(len(order), np.float32), item[order].astype(np.int32), indptr), shape=scores.shape)


def recall(case: Case, score, users: npt.NDArray[np.int64], *, truth, among) -> tuple[float, int]:
    """Mean recall@20 over the users with something to be found, and how many these are."""
    known_by = np.asarray(case.train.sum(axis=0)) / case.train.shape[0]
    total = None
    for start in range(0, len(users), 500):
        some = users[start : start + 500]
        scores = score(some).astype(np.float32)
        scores[case.train[some].toarray() > 0] = -np.inf
        scores[:, ~among] = -np.inf
        lists = _best(scores)
        wanted = sparse.csr_array(case.test[some].multiply(truth[None, :]).tocsr())
        wanted.eliminate_zeros()
        sums = measure(lists, wanted, K, known_by)
        total = sums if total is None else total + sums
    figures = total.figures()
    return figures.recall, figures.users


def main(*, data: Path, only: str | None, settings: HybridSettings) -> None:
    """Print one JSON line per data set and model."""
    for name in [only] if only else CATALOGS:
        case = read_case(data / name)
        models = Models(case, settings)
        everything = np.ones(case.train.shape[1], np.bool_)
        tested = np.diff(case.test.indptr) > 0
        has_history = np.diff(case.train.indptr) > 0
        warm, cold = np.flatnonzero(tested & has_history), np.flatnonzero(tested & ~has_history)
        print(json.dumps({
            "data": name, "items": case.train.shape[1], "cold_items": int(case.cold.sum()),
            "items_without_events": int((case.events == 0).sum()), "features": models.features,
            "interactions": models.interactions, "fit_seconds": round(models.fit_seconds, 1),
            "load": round(os.getloadavg()[0], 1), "told_apart": round(models.told_apart or 0, 1),
        }), flush=True)  # fmt: skip
        for model in ("chance", "popularity", "trending", "hybrid"):
            score = getattr(models, model)
            found: dict[str, object] = {"data": name, "model": model}
            for what, users, truth, among in (
                ("all", warm, case.cold, everything),
                ("cold", warm, case.cold, case.cold),
                ("new", warm, case.events == 0, case.events == 0),
                ("users", cold, everything, everything),
            ):
                value, count = recall(case, score, users, truth=truth, among=among)
                found |= {f"recall@20 {what}": round(value, 4), f"users {what}": count}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--only", choices=sorted(CATALOGS), help="one data set")
    parser.add_argument("--settings", default="{}", help="[hybrid] settings as JSON, to try others")
    given = parser.parse_args()
    main(data=given.data, only=given.only, settings=HybridSettings(**json.loads(given.settings)))
