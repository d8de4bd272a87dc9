"""The jobs train_hybrid and rank_trending: what they publish, twice the same, and what they refuse."""

import datetime as dt
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ranking"))

from catalogs import ITEMS_A_KIND, KINDS
from hybrid_shop import DATE, make_shop

from jobs import rank_trending, train_hybrid
from jobs.lake.item_index import read_index
from jobs.ranking import hybrid_tables
from jobs.ranking.hybrid_tables import read_vectors
from jobs.ranking.item_vectors import VectorItems
from schemas.errors import EmptyPartitionError, GateError, StorageError
from schemas.layout import Partition

NEXT = DATE + dt.timedelta(days=1)
TABLES = ("hybrid_features", "hybrid_items", "hybrid_users")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    shop = make_shop(tmp_path_factory.mktemp("shop"))
    shop.result = shop.run(train_hybrid)
    return shop


@pytest.fixture
def copy(trained, tmp_path):
    """A shop that a test may spoil."""
    shutil.copytree(trained.folder, tmp_path / "copy")
    return type(trained)(tmp_path / "copy")


def contents(shop, date=DATE):
    return [shop.manifest(table, date).content_sha256 for table in TABLES]


def test_what_is_published_is_the_model_its_vectors_and_its_lists(trained):
    assert trained.result["status"] == "trained"
    features, items, lists = (trained.read(table) for table in TABLES)
    assert len(items) == KINDS * ITEMS_A_KIND
    assert set(features["side"].to_pylist()) == {"item", "user"}
    assert len(lists) == KINDS + 1
    assert trained.result["interactions"] > 1_000
    others = VectorItems(read_vectors(trained.lake, trained.manifest("hybrid_items"), 120).vectors).block(0, 120, 10)
    new = ITEMS_A_KIND - 1
    assert (others.indices[others.indptr[new] : others.indptr[new + 1]] // ITEMS_A_KIND == 0).mean() >= 0.8


def test_again_is_nothing_to_do_and_elsewhere_the_same_bytes(trained, tmp_path):
    before = contents(trained)
    assert trained.run(train_hybrid)["status"] == "trained"
    assert contents(trained) == before
    for buckets in (1, 5):
        other = make_shop(tmp_path / str(buckets), buckets=buckets)
        other.run(train_hybrid)
        assert contents(other) == before


def test_a_large_shop_is_sampled_by_users(trained, copy):
    copy.settings(limit=1_000)
    result = copy.run(train_hybrid)
    assert 900 < result["interactions"] <= 1_000 < trained.result["interactions"]
    assert 150 < result["users"] < 300


def test_settings_of_the_merge_do_not_train_anew(copy):
    before = contents(copy)
    copy.campaign.write_text(copy.campaign.read_text().replace("[hybrid]", "[hybrid]\nlittle_support = 3"))
    copy.run(train_hybrid)
    assert contents(copy) == before
    assert copy.manifest("hybrid_items").run_id == "night"


def data_file(shop, table):
    [path] = (shop.folder / "lake").glob(f"{table}/campaign=*/date=*/run=*/attempt=*/*.parquet")
    return path


@pytest.mark.parametrize("how", ["altered", "swapped"])
def test_vectors_that_are_not_the_manifests_are_refused(copy, how):
    path = data_file(copy, "hybrid_items")
    if how == "altered":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    else:
        path.write_bytes(data_file(copy, "hybrid_users").read_bytes())
    with pytest.raises(StorageError, match="is not the file its manifest names"):
        read_vectors(copy.lake, copy.manifest("hybrid_items"), 120)


def test_vectors_of_another_model_are_refused(copy):
    vectors = copy.manifest("hybrid_items")
    copy.settings(epochs=3)
    # The model is published first: a job that is killed behind it leaves vectors that are not its own.
    training = train_hybrid._Training
    publish, training._publish_items = training._publish_items, killed
    try:
        with pytest.raises(KeyboardInterrupt):
            copy.run(train_hybrid)
    finally:
        training._publish_items = publish
    with pytest.raises(GateError, match="was not made from the model"):
        read_vectors(copy.lake, vectors, 120)
    assert copy.run(train_hybrid)["status"] == "trained"
    assert len(read_vectors(copy.lake, copy.manifest("hybrid_items"), 120).vectors) == 120


def killed(*_):
    raise KeyboardInterrupt


def spoil_item_rows(monkeypatch, how):
    """Plant what goes wrong between the model and its table."""
    right = hybrid_tables.item_rows
    monkeypatch.setattr(train_hybrid, "item_rows", lambda item, vectors: right(item, how(vectors)))


@pytest.mark.parametrize(
    ("how", "figure"),
    [
        (lambda v: np.zeros_like(v), "vectors_of_wrong_length"),
        (lambda v: np.tile(v[:1], (len(v), 1)), "rows_made_differently"),
        (lambda v: np.roll(v, 1, axis=0), "rows_made_differently"),
        (lambda v: v[np.random.default_rng(1).permutation(len(v))], "rows_made_differently"),
        (lambda v: np.ascontiguousarray(v[:, ::-1]), "rows_made_differently"),
        (lambda v: v // 2, "vectors_of_wrong_length"),
    ],
    ids=["zeros", "constant", "shifted by one", "shuffled", "mirrored", "halved"],
)
def test_garbage_vectors_do_not_ship(copy, monkeypatch, how, figure):
    copy.settings(epochs=16)
    before = copy.manifest("hybrid_items").content_sha256
    spoil_item_rows(monkeypatch, how)
    result = copy.run(train_hybrid)
    assert result["status"].startswith("kept that of")
    assert figure in result["why"]
    assert copy.manifest("hybrid_items").content_sha256 == before


def test_a_model_that_learned_nothing_does_not_ship(copy, monkeypatch):
    def untrained(*arguments):
        model = train_hybrid_fit(*arguments)
        random = np.random.default_rng(1).normal(size=model.item_vectors.shape)
        return type(model)(random.astype(np.float32), model.item_biases, model.user_vectors, model.user_biases)

    train_hybrid_fit = train_hybrid.fit
    monkeypatch.setattr(train_hybrid, "fit", untrained)
    monkeypatch.setattr(train_hybrid, "whole_vectors", shuffled_vectors)
    copy.settings(epochs=17)
    assert "pairs_told_apart" in copy.run(train_hybrid)["why"]


def shuffled_vectors(vectors):
    from jobs.ranking.item_vectors import whole_vectors

    return whole_vectors(np.random.default_rng(2).normal(size=vectors.shape))


def test_a_divergence_keeps_the_last_good_model_and_says_so(copy):
    before = contents(copy)
    for table in ("profiles", "catalog", "users"):
        rows = copy.lake.read(copy.lake.manifest(Partition(table, DATE)))
        copy.publish(table, rows, NEXT)
    spoiled = copy.campaign.read_text().replace("learning_rate = 0.05", "learning_rate = 10.0")
    copy.campaign.write_text(spoiled.replace("epochs = 15", "epochs = 100"))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(train_hybrid, "fit", diverging)
        result = copy.run(train_hybrid, NEXT)
    assert result["status"] == f"kept that of {DATE}: refused"
    assert "diverged" in result["why"]
    assert contents(copy) == before
    assert copy.lake.find(Partition("hybrid_items", NEXT, "spring")) is None


def diverging(interactions, item_features, user_features, settings):
    from jobs.ranking.hybrid import fit

    return fit(interactions, item_features, user_features, settings.model_copy(update={"learning_rate": 1e6}))


def test_without_a_last_good_model_a_divergence_stops(tmp_path, monkeypatch):
    shop = make_shop(tmp_path)
    monkeypatch.setattr(train_hybrid, "fit", diverging)
    with pytest.raises(GateError, match="diverged"):
        shop.run(train_hybrid)


def test_a_catalog_of_other_ids_says_so(tmp_path):
    shop = make_shop(tmp_path)
    catalog = shop.lake.read(shop.lake.manifest(Partition("catalog", DATE)))
    other = catalog.set_column(0, catalog.schema.field("item_id"), [[f"x{n}" for n in range(len(catalog))]])
    from jobs.lake.item_index import append_items

    append_items(shop.lake, [other["item_id"]], "by-hand")
    shop.publish("catalog", other)
    assert len(read_index(shop.lake)) == 240
    with pytest.raises(EmptyPartitionError, match="nobody showed interest in one of the 120 items"):
        shop.run(train_hybrid)
    with pytest.raises(EmptyPartitionError, match="none of the 120 items"):
        shop.run(rank_trending)


def test_trending_is_published_per_level_and_for_all(copy, tmp_path):
    result = copy.run(rank_trending)
    lists = copy.read("trending")
    keys = lists["key"].to_pylist()
    assert keys == sorted(["", "Top0", "Top1", *(f"Top{k % 2} > Kind{k}" for k in range(KINDS))])
    assert result["categories"] == len(keys) - 1 == 8
    for key, items in zip(keys, lists["item"].to_pylist(), strict=True):
        if "Kind" in key:
            assert {item // ITEMS_A_KIND for item in items} == {int(key[-1])}
            assert len(items) == ITEMS_A_KIND - 1  # the new one is in no demand
    content = copy.manifest("trending").content_sha256
    for buckets in (1, 7):
        other = make_shop(tmp_path / str(buckets), buckets=buckets)
        other.run(rank_trending)
        assert other.manifest("trending").content_sha256 == content


def test_the_model_is_numbers_and_json(trained):
    """Nothing in its folders but Parquet and JSON: no pickle can be there to be loaded."""
    folders = [trained.folder / "lake" / table for table in TABLES]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) >= 9
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert pq.read_schema(path).names, path
