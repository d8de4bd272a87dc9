"""The benchmark of the ranking still fits the tables that it writes and the jobs that it starts."""

import re

import pytest

from bench import recommend
from bench.large_lake import BEFORE, BUCKETS, DATE, Plan, make_lake
from schemas.layout import Partition


def test_the_large_lake_has_the_tables_as_they_are_now(tmp_path):
    plan = Plan(tmp_path, users=10 * BUCKETS, items=3_000, campaign="bench")
    make_lake(plan)
    for table, date, campaign in (("profiles", BEFORE, None), ("users", DATE, None), ("receipts", BEFORE, "bench")):
        assert plan.lake.manifest(Partition(table, date, campaign)).rows == 10 * BUCKETS
    assert plan.lake.manifest(Partition("correlations", DATE, "bench")).rows == 3_000


@pytest.mark.scoreboard
def test_a_small_run_folds_and_ranks_everybody(tmp_path, capsys):
    recommend.main(1_280, 3_000, 20, tmp_path, peers=False)

    assert re.search(r"recommend +\d+\.\d s", capsys.readouterr().out)
    lake = Plan(tmp_path, 1_280, 3_000, "bench").lake
    assert lake.manifest(Partition("profiles", DATE)).rows == 1_280
    assert lake.manifest(Partition("recommendations", DATE, "bench")).rows == 1_280
