"""What items and users are, as named features."""

import json

import numpy as np
import pyarrow as pa
import pytest
from catalogs import catalog_of, kinds_of_goods, users_of

from jobs.ranking.categories import category_levels
from jobs.ranking.item_features import item_features
from jobs.ranking.user_features import combination_matrix, combinations, features_in, shared_features


def names_of(features, row):
    start, end = features.matrix.indptr[row : row + 2]
    return set(features.names.take(pa.array(features.matrix.indices[start:end])).to_pylist())


def test_every_level_of_a_path_is_named():
    rows, paths = category_levels(pa.chunked_array([["A > B > C", None], ["", "A"]]))
    assert list(zip(rows.tolist(), paths.to_pylist(), strict=True)) == [
        (0, "A"), (3, "A"), (0, "A > B"), (0, "A > B > C"),
    ]  # fmt: skip


def test_an_item_has_the_features_that_others_share_and_no_others():
    size = {"size": "L"}
    catalog = catalog_of(
        [
            {"item_id": "a", "title": "Red, wide CUP", "category": "H > K", "brand": "X", "properties": size},
            {"item_id": "b", "title": "cup", "category": "H > K", "brand": "Y", "price": "80", "properties": size},
            {"item_id": "c", "title": "cup (red)", "category": "H > T", "brand": "X", "price": "300"},
            {"item_id": "d", "title": "plate", "category": "G", "price": "2000"},
            {"item_id": "e", "title": "spoon", "category": "G", "price": "9000"},
            {"item_id": "f", "title": "fork", "price": "70000"},
        ]
    )  # fmt: skip
    features = item_features(catalog, min_items=2, max_features=100)
    assert names_of(features, 0) == {
        "category=H", "category=H > K", "brand=X", "word=red", "word=cup", "property=size=L",
    }  # fmt: skip
    assert names_of(features, 2) == {"category=H", "brand=X", "word=red", "word=cup"}
    assert names_of(features, 3) == {"category=G"}
    assert names_of(features, 5) == set()
    assert features.names.to_pylist() == sorted(features.names.to_pylist(), key=str.encode)


def test_what_is_rare_weighs_more_and_every_item_weighs_the_same():
    features = item_features(kinds_of_goods(), min_items=2, max_features=1_000)
    assert features.matrix.shape == (120, len(features.names))
    assert len(features.names) > 20
    squares = features.matrix.multiply(features.matrix).sum(axis=1)
    np.testing.assert_allclose(squares, squares[0], rtol=1e-5)
    names = features.names.to_pylist()
    row = dict(zip(features.matrix.indices[: features.matrix.indptr[1]], features.matrix.data, strict=False))
    assert row[names.index("category=Top0 > Kind0")] > row[names.index("word=word0")]
    # In all items of one half: what half of the catalog has still tells the halves apart, more than half does not.
    assert "category=Top0" in names
    assert "price=EUR 7" not in names


def test_a_limit_keeps_the_most_common():
    few = item_features(kinds_of_goods(), min_items=2, max_features=2)
    assert few.names.to_pylist() == ["category=Top0", "category=Top1"]


def test_the_order_of_chunks_does_not_matter():
    catalog = kinds_of_goods()
    split = pa.concat_tables([catalog.slice(0, 7), catalog.slice(7, 0), catalog.slice(7)])
    one, other = (item_features(table, min_items=2, max_features=1_000) for table in (catalog, split))
    assert one.names.equals(other.names)
    assert (one.matrix != other.matrix).nnz == 0


def test_properties_of_a_slice_are_its_own():
    """A null map between others, and a table that starts inside a chunk."""
    rows = [{"item_id": f"{n}", "properties": {"color": f"c{n % 2}"} if n % 3 else None} for n in range(12)]
    whole = item_features(catalog_of(rows), min_items=2, max_features=100)
    part = item_features(catalog_of(rows).slice(4), min_items=2, max_features=100)
    for row in range(8):
        wanted = {f"property=color=c{row % 2}"} if (row + 4) % 3 else set()
        assert {name for name in names_of(part, row) if name.startswith("property")} == wanted
        assert {name for name in names_of(whole, row + 4) if name.startswith("property")} == wanted


PEOPLE = [("de-DE", {"age": "30", "id": f"x{n}"}) for n in range(30)] + [
    *[("fr-FR", {"age": "50"}) for _ in range(25)],
    ("xx-XX", {"age": "30"}),
    (None, {}),
]


def test_features_of_users_are_what_enough_of_them_share():
    known = shared_features(users_of(PEOPLE), min_users=20)
    assert known == [("age", "30"), ("age", "50"), ("locale", "de-DE"), ("locale", "fr-FR")]


def test_a_key_with_a_value_for_everybody_is_no_feature():
    people = [("de-DE", {"joined": f"day {n % 150}"}) for n in range(600)]
    assert shared_features(users_of(people), min_users=2) == [("locale", "de-DE")]
    assert len(shared_features(users_of([(a, {"d": b["joined"][:5]}) for a, b in people]), min_users=2)) == 11


def test_a_combination_names_what_is_known_and_nothing_else():
    known = shared_features(users_of(PEOPLE), min_users=20)
    texts = combinations(users_of(PEOPLE), known).to_pylist()
    assert texts[0] == '{"age": "30", "locale": "de-DE"}'
    assert texts[-2:] == ['{"age": "30"}', "{}"]
    assert len(set(texts)) == 4
    assert features_in(texts) == known
    matrix = combination_matrix(pa.array(texts), known).matrix.toarray()
    assert matrix[0].tolist() == [1, 0, 1, 0]
    assert matrix[-1].tolist() == [0, 0, 0, 0]
    assert [json.loads(text) for text in texts[-2:]] == [{"age": "30"}, {}]


@pytest.mark.parametrize("empty", [True, False])
def test_users_without_attributes_are_all_the_same(empty):
    users = users_of([] if empty else [(None, {})] * 3)
    assert combinations(users, []).to_pylist() == ["{}"] * len(users)
