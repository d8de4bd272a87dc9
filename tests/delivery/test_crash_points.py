"""A night that dies at any point ends as one that does not: everybody's own items, one send, one receipt each."""

import pytest
from fake_provider import NO_FAULTS, some_faults
from small_night import PLAN, Night

SEEDS = (1, 2, 3, 4)


pytestmark = pytest.mark.usefixtures("small")


CALLS = {
    "contacts": {"upsert was acted upon"},
    "csv_import": {"request_import was acted upon", "upload_import was acted upon"},
}


@pytest.mark.parametrize("method", CALLS)
def test_a_night_without_faults(base, tmp_path, ledger, method):
    night = Night(base, tmp_path / "lake", ledger, method=method)
    night.run()
    assert night.differences() == []
    assert len(night.provider.upserts) >= 4
    assert len(night.points) > 40
    assert {name for name in night.points if "acted" in name} >= CALLS[method] | {
        "create_draft was acted upon", "schedule was acted upon", "ensure_list was acted upon",
    }  # fmt: skip
    assert night.provider.places == {}  # of imports: each got its file


def die_at_points(base, tmp_path, ledger, seed, method, points):
    """Die at some points of a night (`points` chooses among them all), each time in a night of its own."""
    faults = NO_FAULTS if seed is None else some_faults(seed)
    whole = Night(base, tmp_path / "whole", ledger, faults=faults, method=method)
    whole.run()
    assert whole.differences() == []
    requests = len(whole.provider.upserts)
    assert len(whole.points) > 40
    chosen = points(whole.points)
    assert len(chosen) > 15
    for k in chosen:
        night = Night(base, tmp_path / f"lake-{k}", ledger, faults=faults, die_at=k, method=method)
        night.run()
        assert night.deaths == 1, k
        assert night.differences() == [], f"seed {seed}, died at point {k}: {night.points[k]}"
        if seed is None:
            assert len(night.provider.upserts) <= requests + 1, f"{k}: more than the request in flight was repeated"
            asked = sum(name == "request_import" for _, name in night.provider.calls)
            assert asked <= (requests + 1 if method == "csv_import" else 0), f"{k}: more than one place was asked for"


def all_points(points):
    return range(len(points))


def points_of_a_chunk(points):
    """To the end of the first chunk, which has a file in two lanes; what comes after the push is the same anyway."""
    return range(points.index("ensure_fields was acted upon", points.index("upload_import was acted upon")))


def each_fifth(points):
    return range(1, points.index("list_size was acted upon"), 5)


@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_a_night_that_dies_at_any_point_ends_as_one_that_does_not(base, tmp_path, ledger, seed):
    die_at_points(base, tmp_path, ledger, seed, "contacts", all_points)


@pytest.mark.parametrize(("seed", "points"), [(None, points_of_a_chunk), (1, each_fifth)])
def test_a_night_by_file_that_dies_at_any_point_ends_as_one_that_does_not(base, tmp_path, ledger, seed, points):
    die_at_points(base, tmp_path, ledger, seed, "csv_import", points)


@pytest.mark.scoreboard
@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_every_point_of_a_night_by_file(base, tmp_path, ledger, seed):
    die_at_points(base, tmp_path, ledger, seed, "csv_import", all_points)


def test_the_plan_has_everything_to_get_wrong():
    actions = [action for action, _ in PLAN.values()]
    assert all(actions.count(kind) >= least for kind, least in {"upsert": 5, "clear": 2, "withheld": 1}.items())
