"""The quality benchmark from end to end on small folders, and its protocol against a plain reading of the rows."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from bench import quality_sets
from bench.quality import arguments, main
from bench.quality_data import read
from bench.quality_peers import PEERS, DoesNotFitError, rank
from jobs.ranking.rank_users import nearest
from schemas.errors import ConfigError

# implicit asks for one BLAS thread at import; the figures do not depend on it.
pytestmark = pytest.mark.filterwarnings("ignore:OpenBLAS is configured:RuntimeWarning")

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def write(folder, **columns):
    pq.write_table(pa.table(columns), folder / "events.parquet")
    return folder


def shop(rows=1500, users=100, groups=5):
    """Users of groups who mostly buy what their group buys."""
    rng = np.random.default_rng(0)
    user = rng.integers(0, users, rows)
    own = (user % groups) * 12 + rng.integers(0, 12, rows)
    item = np.where(rng.random(rows) < 0.8, own, rng.integers(0, groups * 12, rows))
    return user, item, rng.integers(0, 10_000, rows)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def run(folder, out, *more):
    main(**vars(arguments().parse_args(["--data", str(folder), "--out", str(out), "--threads", "1", *more])))


def test_every_model_ranks_and_its_lists_give_its_figures(tmp_path, capsys):
    user, item, at = shop()
    kinds = pa.array(["purchase"] * 1400 + ["refund"] * 100)
    write(tmp_path, user_id=[f"u{u:03d}" for u in user], item_id=item.astype(str), event_type=kinds, ts=pa.array(at))
    run(tmp_path, tmp_path / "out", "--peer-defaults")
    first, *found = lines(capsys)
    assert first["protocol"] == "time"
    assert [line["model"] for line in found] == [*(peer.name for peer in PEERS), "ryml"]
    data = read(tmp_path)
    truth = {}
    for row, column in zip(*data.test.nonzero(), strict=True):
        truth.setdefault(data.users[int(row)].as_py(), set()).add(data.items[int(column)].as_py())
    trained = {
        (data.users[int(u)].as_py(), data.items[int(i)].as_py())
        for u, i in zip(data.train.user, data.train.item, strict=True)
    }
    assert len(truth) > 60
    for line in found:
        rows = pq.read_table(tmp_path / "out" / f"{line['model']}.parquet")
        assert rows.schema.names == ["user_id", "item_id", "rank"]
        lists = {}
        for one in rows.to_pylist():
            assert (one["user_id"], one["item_id"]) not in trained
            lists.setdefault(one["user_id"], []).append((one["rank"], one["item_id"]))
        assert set(lists) == set(truth)
        assert all([place for place, _ in mine] == list(range(1, len(mine) + 1)) for mine in lists.values())
        recall = np.mean([len({i for _, i in lists[u]} & truth[u]) / len(truth[u]) for u in truth])
        assert line["recall@20"] == pytest.approx(recall, abs=2e-5)
        assert {"ndcg@20", "coverage", "fit_seconds", "score_seconds", "settings"} <= set(line)
    by_name = {line["model"]: line for line in found}
    assert by_name["ryml"]["recall@20"] > by_name["popularity"]["recall@20"]
    assert by_name["ryml"]["tried"] > 10
    assert 0 < by_name["ryml"]["recall@20_of_lists_of_20"] <= 1
    # Once more: the same lists.
    before = pq.read_table(tmp_path / "out" / "ryml.parquet")
    run(tmp_path, tmp_path / "out", "--models", "ryml")
    assert pq.read_table(tmp_path / "out" / "ryml.parquet").equals(before)


def test_odd_rows_are_left_out_or_kept_as_they_should_be(tmp_path):
    write(
        tmp_path,
        user_id=pa.array([1, 1, 1, 2, 2, None, 3, 1, 4]),
        item_id=pa.array(["a", "a", "b", "a", "c", "a", None, "d", "z"]),
        event_type=pa.array(["buy", "buy", None, "buy", "buy", "buy", "buy", "Cart_Remove", "buy"]),
        split=pa.array(["train", "train", "valid", "train", "test", "test", "test", "train", "test"]),
    )
    data = read(tmp_path)
    assert data.protocol == "split"
    assert data.users.to_pylist() == [1, 2, 4]  # user 3 has no item; ids keep their type
    assert data.items.to_pylist() == ["a", "b", "c", "z"]
    trained = list(zip(data.train.user, data.train.item, data.train.times, strict=True))
    assert trained == [(0, 0, 2), (0, 1, 1), (1, 0, 1)]
    assert [(int(u), int(i)) for u, i in zip(*data.test.nonzero(), strict=True)] == [(1, 2), (2, 3)]


@pytest.mark.parametrize(
    "times",
    [
        pa.array(range(10)),
        pa.array([float(n) for n in range(10)]),
        pa.array([START + dt.timedelta(hours=n) for n in range(10)]),
        pa.array([(START + dt.timedelta(days=n)).date() for n in range(10)]),
        pa.array([START + dt.timedelta(hours=n) for n in range(10)], pa.timestamp("us", tz="Europe/Berlin")),
        pa.array([START + dt.timedelta(hours=n) for n in range(10)]).cast(pa.timestamp("ns")),
        pa.array([None, 3.0, float("nan"), *(float(n) for n in range(10, 17))]),  # what has no time is the oldest
        pa.array([f"2026-01-01 00:00:{n:02d}" for n in range(10)]),
        pa.array([f"2026-01-{n:02d}" for n in range(1, 11)]).dictionary_encode(),
        pa.array(["", *(f"2026-01-01T0{n}:00:00Z" for n in range(1, 10))], pa.large_string()),
        # An hour east of it, every other one: 8 and 9 are still the newest.
        pa.array([f"2026-01-01T{2 * n + n % 2:02d}:00:00" + ("+01:00" if n % 2 else "") for n in range(10)]),
        pa.array([str(n) for n in range(10)], pa.string_view()),
    ],
    ids=lambda times: str(times.type),
)
def test_any_kind_of_time_tests_on_the_newest_fifth(tmp_path, times):
    write(tmp_path, user_id=[7] * 10, item_id=list(range(10)), ts=times)
    data = read(tmp_path)
    assert data.protocol == "time"
    assert data.train.item.tolist() == list(range(8))
    assert data.test.indices.tolist() == [8, 9]


@pytest.mark.parametrize(
    ("user", "item"),
    [
        (pa.array(range(20), pa.int8()), pa.array(range(20), pa.uint64())),
        (pa.array(range(20)).cast(pa.string()).dictionary_encode(), pa.array(range(20)).cast(pa.large_string())),
        (pa.array([str(n) for n in range(20)], pa.string_view()), pa.array([float(n) for n in range(20)])),
        (pa.array([b"%d" % n for n in range(20)]), pa.array(range(20))),
    ],
    ids=lambda ids: str(ids.type),
)
def test_any_kind_of_id_and_more_columns_and_files_are_no_trouble(tmp_path, user, item):
    user_id = pa.array(np.repeat(user.to_pylist(), 3).tolist(), user.type)
    item_id = pa.array([item[n * 7 % 20].as_py() for n in range(60)], item.type)
    write(tmp_path, user_id=user_id, item_id=item_id, price=pa.nulls(60))
    pq.write_table(pa.table({"item_id": [1]}), tmp_path / "items.parquet")
    data = read(tmp_path)
    assert (len(data.users), len(data.items)) == (20, 20)
    assert len(data.train.user) + data.test.nnz == 60
    assert data.test.nnz > 5


def test_a_folder_of_part_files_is_one_file(tmp_path):
    (tmp_path / "events.parquet").mkdir()
    for part in range(2):
        columns = {"user_id": [1] * 5, "item_id": list(range(part * 5, part * 5 + 5))}
        pq.write_table(pa.table(columns), tmp_path / "events.parquet" / f"part-{part}.parquet")
    assert len(read(tmp_path).items) == 10


@pytest.mark.parametrize("names", [("Train", "Test"), ("TRAINING", " testing"), ("valid", "holdout")])
def test_the_split_may_be_spelled_otherwise(tmp_path, names):
    write(
        tmp_path, user_id=[1, 1, 1], item_id=[1, 2, 3], split=pa.array([names[0], None, names[1]]).dictionary_encode()
    )
    data = read(tmp_path)
    assert data.train.item.tolist() == [0, 1]
    assert data.test.indices.tolist() == [2]


@pytest.mark.parametrize("held_back", ["newest", "newest of each user", "any"])
def test_models_are_chosen_on_what_is_held_back_as_the_split_was(tmp_path, held_back):
    rng = np.random.default_rng(3)
    user, at = np.repeat(np.arange(40), 10), rng.permutation(400)
    last = np.array([at[user == u].max() for u in range(40)])
    is_test = {"newest": at >= 350, "newest of each user": at == last[user], "any": rng.random(400) < 0.2}[held_back]
    split = np.where(is_test, "test", "train")
    write(tmp_path, user_id=user, item_id=rng.integers(0, 300, 400), ts=at, split=split)
    assert read(tmp_path).held_back == held_back
    write(tmp_path, user_id=user, item_id=rng.integers(0, 300, 400), split=split)
    assert read(tmp_path).held_back == "any"


def test_without_times_a_fifth_of_each_users_items_is_held_back(tmp_path):
    write(tmp_path, user_id=[u for u in range(20) for _ in range(10)] * 2, item_id=list(range(10)) * 40, ts=[5] * 400)
    data = read(tmp_path)
    assert data.protocol == "random"
    assert np.diff(data.test.indptr).tolist() == [2] * 20
    assert set(data.train.times) == {2}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1]}, "lacks user_id, item_id"),
        ({"user_id": pa.array([None], pa.int64()), "item_id": [1]}, "no event of interest with both ids"),
        (
            {"user_id": [1, 2], "item_id": [1, 2], "split": ["train", "valid"]},
            "no row, it is train, valid; expected",
        ),
        ({"user_id": [1, 2], "item_id": [1, 2], "split": [True, False]}, "no row, it is (True|False), "),
        ({"user_id": [[1], [2]], "item_id": [1, 2]}, "user_id is of type list<.*expected numbers, text or times"),
        ({"user_id": [1, 2], "item_id": [1, 2], "event_type": [b"\xff", b"a"]}, "event_type of type binary is no text"),
        ({"user_id": [1, 2], "item_id": [1, 2], "ts": ["soon", "later"]}, "is no time"),
        ({"user_id": [1, 2], "item_id": [1, 1], "split": ["test", "test"]}, "0 training pairs and 2 new test pairs"),
    ],
)
def test_bad_input_says_what_is_wrong(tmp_path, columns, message):
    write(tmp_path, **columns)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"events\.parquet does not exist; DATA= names a folder .* no Parquet file"):
        read(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "ratings.parquet")
    with pytest.raises(ConfigError, match=r"has ratings\.parquet"):
        read(tmp_path)
    (tmp_path / "events.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        read(tmp_path)


def test_users_with_one_item_and_items_only_in_the_test_are_no_trouble(tmp_path, capsys):
    rows = [(u, i, "train") for u in range(30) for i in (u % 7, 7 + u % 3)] + [(50, 3, "train"), (51, 99, "test")]
    rows += [(u, (u + 1) % 7, "test") for u in range(30)] + [(50, 4, "test")]
    user, item, split = zip(*rows, strict=True)
    write(tmp_path, user_id=user, item_id=item, split=split)
    run(tmp_path, tmp_path / "out", "--models", "popularity,ease,ryml")
    first, *found = lines(capsys)
    assert (first["test_users"], first["test_users_without_training"]) == (32, 1)
    assert [line["model"] for line in found if "skipped" not in line] == ["popularity", "ease", "ryml"]


@pytest.mark.parametrize(("users", "items"), [(1, 30), (20, 50), (300, 3)], ids=["one user", "few users", "few items"])
def test_small_data_is_measured_too(tmp_path, capsys, users, items):
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(users), 12)
    write(tmp_path, user_id=user, item_id=rng.integers(0, items, len(user)), ts=rng.integers(0, 10**6, len(user)))
    run(tmp_path, tmp_path / "out", "--models", "popularity,implicit-cosine,ease,ryml")
    first, *found = lines(capsys)
    assert first["test_users"] > 0
    assert [line["model"] for line in found if "recall@20" in line] == ["popularity", "implicit-cosine", "ease", "ryml"]


def test_a_peer_that_does_not_fit_says_so_and_the_rest_go_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.quality_peers.EASE_MOST_ITEMS", 3)
    user, item, _ = shop(400)
    write(tmp_path, user_id=user, item_id=item)
    run(tmp_path, tmp_path / "out", "--models", "ease,popularity", "--peer-defaults")
    _, popular, skipped = lines(capsys)
    assert popular["model"] == "popularity"
    assert skipped["model"] == "ease"
    assert "inverts at most 3" in skipped["skipped"]
    assert issubclass(DoesNotFitError, Exception)


def test_peers_rank_without_what_is_known_ties_by_item():
    train = sparse.csr_array(np.array([[0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]], np.float32))
    ranked = rank(lambda users: np.array([[1, 9, 2, 2], [3, 3, 3, 9]])[users], train, np.array([0, 1]))
    assert ranked.indices.tolist() == [2, 0, 0, 1, 2]


def test_lists_are_cut_as_they_are_published():
    lists = sparse.csr_array((np.array([3, 2, -1, -4], np.float32), [1, 2, 3, 0], [0, 3, 3, 4]), shape=(3, 4))
    assert nearest(lists, 1).toarray().tolist() == [[0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert nearest(lists, 9).nnz == 2


def test_sets_of_other_kinds_are_the_same_every_time(tmp_path):
    for out in ("one", "two"):
        quality_sets.main(data=tmp_path, out=tmp_path / out, names=["popular-still", "communities", "nearly-popular"])
    for name in ("popular-still", "communities", "nearly-popular"):
        one, two = (pq.read_table(tmp_path / out / name / "events.parquet") for out in ("one", "two"))
        assert len(one) > 50_000
        assert one.equals(two)
        assert read(tmp_path / "one" / name).protocol == ("time" if name == "nearly-popular" else "random")
    with pytest.raises(SystemExit, match="unknown sets best, expected some of gowalla-random"):
        quality_sets.main(data=tmp_path, out=tmp_path, names=["best"])


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(SystemExit, match="unknown models best, expected some of popularity"):
        run(tmp_path, tmp_path / "out", "--models", "best")
