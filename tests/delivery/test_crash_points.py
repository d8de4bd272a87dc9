"""A night that dies at any point ends as one that does not: everybody's own items, one send, one receipt each."""

import pytest
from fake_provider import NO_FAULTS, some_faults
from small_night import PLAN, Night

SEEDS = (1, 2, 3, 4)


pytestmark = pytest.mark.usefixtures("small")


def test_a_night_without_faults(base, tmp_path, ledger):
    night = Night(base, tmp_path / "lake", ledger)
    night.run()
    assert night.differences() == []
    assert len(night.provider.upserts) >= 4
    assert len(night.points) > 40
    assert {name for name in night.points if "acted" in name} >= {
        "upsert was acted upon", "create_draft was acted upon", "schedule was acted upon", "ensure_list was acted upon",
    }  # fmt: skip


@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_a_night_that_dies_at_any_point_ends_as_one_that_does_not(base, tmp_path, ledger, seed):
    faults = NO_FAULTS if seed is None else some_faults(seed)
    whole = Night(base, tmp_path / "whole", ledger, faults=faults)
    whole.run()
    assert whole.differences() == []
    requests = len(whole.provider.upserts)
    assert len(whole.points) > 40
    for k in range(len(whole.points)):
        night = Night(base, tmp_path / f"lake-{k}", ledger, faults=faults, die_at=k)
        night.run()
        assert night.deaths == 1, k
        assert night.differences() == [], f"seed {seed}, died at point {k}: {night.points[k]}"
        if seed is None:
            assert len(night.provider.upserts) <= requests + 1, f"{k}: more than the request in flight was repeated"


def test_the_plan_has_everything_to_get_wrong():
    actions = [action for action, _ in PLAN.values()]
    assert all(actions.count(kind) >= least for kind, least in {"upsert": 5, "clear": 2, "withheld": 1}.items())
