"""Explaining from a run's own inputs: true for past days, and clear where an input is gone or was made again."""

import datetime as dt
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from jobs import explain_user
from jobs.explain.explain import Explainer
from jobs.explain.pinned_lake import PinnedLake, partition_of
from jobs.lake.item_index import append_items, read_index
from jobs.lake.lake import Lake
from jobs.profiles.fold import Caps, fold
from jobs.ranking.inputs import ranking_inputs
from jobs.ranking.recommend import recommend
from jobs.ranking.user_batch import UserBatch
from schemas.errors import EmptyPartitionError, StorageError
from schemas.layout import Partition
from schemas.ranking_rules import RankingSettings
from schemas.tables import CATALOG, CORRELATIONS, EVENTS, RECOMMENDATIONS

DATE = dt.date(2026, 11, 2)
ITEMS = [f"item-{number}" for number in range(8)]
SETTINGS = RankingSettings(slots=3, min_items=1, fallback={"steps": []})
DONE = [
    ("ann", "item-0", "view", 9), ("ann", "item-1", "purchase", 8), ("ann", "item-4", "wishlist_add", 7),
    ("bob", "item-7", "view", 1),
]  # fmt: skip


def rows_of(table, rows):
    return pa.Table.from_pylist(rows, schema=table.schema)


def catalog(**changes):
    rows = [
        {
            "item_id": item, "title": f"Title of {item}", "url": "u", "image_url": "i", "price": Decimal(5),
            "currency": "EUR", "stock": int(item != "item-5"),
        }
        | changes.get(item, {})
        for item in ITEMS
    ]  # fmt: skip
    return rows_of(CATALOG, rows)


def correlations(strength):
    """Items 0 and 1 go with all others, the nearer by number the more."""
    found = []
    for item in (0, 1):
        others = [other for other in range(8) if other != item]
        score = [strength / (1 + abs(other - item)) for other in others]
        order = np.argsort([-s for s in score], kind="stable")
        found.append(
            {
                "item": item,
                "other_item": [others[place] for place in order],
                "score": [score[place] for place in order],
                "support": [3] * len(others),
                "source": [0] * len(others),
            }
        )
    return rows_of(CORRELATIONS, found)


def publish(lake, table, rows, *, date=DATE, campaign=None, inputs=(), parameters=None):
    attempt = lake.attempt(Partition(table, date, campaign), "test")
    return attempt.publish([attempt.write(rows)], inputs=inputs, parameters=parameters or {"of": "the test"})


@pytest.fixture
def lake(tmp_path):
    """A lake with one bucket, and one finished run whose correlations are of the day before."""
    lake = Lake.open(str(tmp_path / "lake"), buckets=1)
    append_items(lake, [pa.chunked_array([ITEMS])], "test")
    at = dt.datetime.combine(DATE, dt.time(), dt.UTC)
    events = [
        {
            "user_id": user, "item_id": item, "event_type": kind, "quantity": 1,
            "occurred_at": at + dt.timedelta(hours=hour),
        }
        for user, item, kind, hour in DONE
    ]  # fmt: skip
    folded = fold(None, rows_of(EVENTS, events), read_index(lake), caps=Caps(views=100, states=100), mailed=[])
    publish(lake, "profiles", folded)
    publish(lake, "catalog", catalog())
    publish(lake, "correlations", correlations(0.5), date=DATE - dt.timedelta(days=1), campaign="spring")
    recommend_again(lake)
    return lake


def recommend_again(lake):
    inputs = ranking_inputs(lake, DATE, "spring", SETTINGS)
    users, _ = inputs.users_of_bucket(lake, 0)
    batch = UserBatch.of(users.profiles, SETTINGS, len(ITEMS), inputs.now)
    lists = recommend(batch, inputs.shared(lake, SETTINGS), SETTINGS, users.features)
    assert lists.schema.equals(RECOMMENDATIONS.schema)
    parameters = SETTINGS.ranking_parameters()
    return publish(lake, "recommendations", lists, campaign="spring", inputs=inputs.manifests, parameters=parameters)


def explain(lake, user="ann"):
    return explain_user.main(lake=lake.uri, date=DATE, campaign="spring", user=user)


def test_each_item_has_what_brought_it_or_the_rule_and_the_event_that_kept_it_out(lake):
    found = explain(lake)
    assert found.notes == ()
    assert [kept.item_id for kept in found.kept] == ["item-2", "item-3", "item-6"]
    rules = {dropped.item_id: (dropped.rule, dropped.event, dropped.event_at) for dropped in found.dropped}
    assert rules == {
        "item-0": ("seen", "view", "2026-11-02T09:00:00+00:00"),
        "item-1": ("bought", "purchase", "2026-11-02T08:00:00+00:00"),
        "item-4": ("wishlisted", "wishlist_add", "2026-11-02T07:00:00+00:00"),
        "item-5": ("sold_out", None, None),
        "item-7": ("beyond_slots", None, None),
    }
    assert found.candidates == 8
    for kept in found.kept:
        assert [cause.item_id for cause in kept.because] == ["item-1", "item-0"]  # the purchase weighs more
        total = sum(cause.similarity * cause.weight for cause in kept.because)
        assert kept.score == pytest.approx(total, rel=1e-5)
    assert json.loads(json.dumps(found.as_json()))["kept"][0]["title"] == "Title of item-2"
    everybodys = Explainer.open(lake, "spring", DATE)
    assert everybodys.explain("ann") == found
    assert everybodys.shared.table.matrix.nnz > Explainer.open(lake, "spring", DATE, "bob").shared.table.matrix.nnz
    nothing = explain(lake, "bob")
    assert (nothing.outcome, nothing.candidates, nothing.kept) == ("too_few", 0, ())


def test_it_is_what_the_run_read_whatever_came_since(lake):
    """Planted bug: the inputs of today. Newer correlations and later days are there, and change nothing."""
    before = explain(lake)
    publish(lake, "correlations", correlations(0.1), campaign="spring")
    publish(lake, "catalog", catalog(**{"item-2": {"stock": 0}}), date=DATE + dt.timedelta(days=1))
    assert explain(lake) == before
    now = ranking_inputs(lake, DATE, "spring", SETTINGS)
    assert now.correlations.partition.date == DATE
    assert Explainer.open(lake, "spring", DATE).inputs.correlations.partition.date == DATE - dt.timedelta(days=1)


def test_every_input_that_is_gone_or_was_made_again_is_named(lake):
    publish(lake, "catalog", catalog(**{"item-2": {"stock": 0}}))
    lake.storage.delete_folder("profiles")
    with pytest.raises(StorageError) as caught:
        explain(lake)
    message = str(caught.value)
    assert "catalog/date=2026-11-02 was made again since" in message
    assert "profiles/date=2026-11-02 has expired" in message
    assert "correlations" not in message


def test_a_list_that_is_not_what_the_rules_give_is_said(lake):
    made = lake.manifest(Partition("recommendations", DATE, "spring"))
    rows = lake.read(made).to_pylist()
    rows[0] |= {"item": [7], "score": [1.0], "source": [0]}
    inputs = [lake.manifest(partition_of(name)) for name in made.inputs]
    publish(
        lake, "recommendations", rows_of(RECOMMENDATIONS, rows), campaign="spring", inputs=inputs,
        parameters=dict(made.parameters),
    )  # fmt: skip
    assert "another list than the one that was published" in " ".join(explain(lake).notes)


def test_a_user_or_a_run_that_is_not_there_is_said(lake):
    with pytest.raises(EmptyPartitionError, match="has no user 'eve'"):
        explain(lake, "eve")
    with pytest.raises(EmptyPartitionError, match="never published"):
        Explainer.open(lake, "autumn", DATE)


def test_a_pinned_lake_finds_its_pins_and_the_index_alone(lake):
    pinned = PinnedLake.of(lake, lake.manifest(Partition("recommendations", DATE, "spring")))
    assert len(pinned.pins) == 3
    assert pinned.find(Partition("catalog", DATE)) is not None
    assert lake.find(Partition("recommendations", DATE, "spring")) is not None
    assert pinned.find(Partition("recommendations", DATE, "spring")) is None
    assert len(read_index(pinned)) == 8
    for partition in (Partition("catalog", DATE), Partition("recommendations", DATE, "spring")):
        assert partition_of(str(partition)) == partition


def test_the_job_writes_text_or_json_and_says_what_is_wrong(lake, capsys):
    options = ["--lake", lake.uri, "--date", str(DATE), "--campaign", "spring", "--user", "ann"]
    assert explain_user.run(vars(explain_user.arg_parser().parse_args(options))) == 0
    text = capsys.readouterr().out
    assert "8 candidates = 3 kept + 5 dropped" in text
    assert "item-1 Title of item-1  score" in text
    assert "dropped by bought: purchase at 2026-11-02T08:00:00+00:00" in text
    assert explain_user.run(vars(explain_user.arg_parser().parse_args([*options, "--json"]))) == 0
    assert json.loads(capsys.readouterr().out)["candidates"] == 8
    assert explain_user.run(vars(explain_user.arg_parser().parse_args([*options[:-1], "eve"]))) > 0
    assert "EmptyPartitionError: " in capsys.readouterr().err
