"""Suppressions before the plan: only what is new, nobody forgotten, and everything again once a week."""

import datetime as dt
from dataclasses import replace

import pytest
from small_night import DATE, Night, PointedLedger, base_lake

from jobs.delivery.ledger import Run
from jobs.delivery.people_book import hashes_of
from jobs.delivery.withdraw import OVERLAP
from jobs.pull_suppressions import pull_suppressions
from schemas.layout import Partition

ANN, BOB, EVE = (f"{name}@example.com" for name in ("ann", "bob", "eve"))


class Shop:
    """Nights of suppressions: each is pulled a day after the one before."""

    def __init__(self, night):
        self.night, self.asked = night, []
        self.listed = []  # (kind, address, instant) at the provider
        night.provider.suppressed_addresses = self.suppressed

    def suppressed(self, since=None, *, group_id=None):
        self.asked.append(since)
        return iter(
            [
                (kind, address)
                for kind, address, at in self.listed
                if (kind == "group_unsubscribes" and group_id) or since is None or at >= since
            ]
        )

    def add(self, kind, address):
        self.listed.append((kind, address, self.night.time.at))

    def pull(self, day):
        date = DATE + dt.timedelta(days=day)
        delivery = replace(self.night.delivery, run=Run("spring", date))
        result = pull_suppressions(delivery)
        rows = delivery.lake.read(delivery.lake.manifest(Partition("suppressions", date, "spring"))).to_pylist()
        self.night.time.sleep(86_400)
        hashes = {row["address_key"] for row in rows}
        return result, {one for one in (ANN, BOB, EVE) if hashes_of(delivery.ledger, [one], "address")[0] in hashes}


@pytest.fixture
def shop(tmp_path):
    return Shop(Night(base_lake(tmp_path), tmp_path / "night", PointedLedger()))


def test_a_night_asks_for_what_is_new_and_keeps_whom_it_had(shop):
    shop.add("bounces", ANN)
    shop.night.time.sleep(2 * OVERLAP.total_seconds())
    first_at = shop.night.time.at
    assert shop.pull(1)[1] == {ANN}
    shop.add("unsubscribes", BOB)
    result, suppressed = shop.pull(2)
    assert suppressed == {ANN, BOB}
    assert result["pulled"] == 1
    assert shop.asked == [None, first_at - OVERLAP]


def test_who_joins_the_group_again_is_mailed_the_next_night(shop):
    shop.add("group_unsubscribes", EVE)
    shop.add("bounces", ANN)
    assert shop.pull(1)[1] == {ANN, EVE}
    shop.listed = [one for one in shop.listed if one[1] != EVE]
    assert shop.pull(2)[1] == {ANN}


def test_once_a_week_everything_is_asked_for_and_who_was_taken_off_a_list_is_mailed_again(shop):
    shop.add("bounces", ANN)
    for day in range(1, 8):
        assert shop.pull(day)[1] == {ANN}
        shop.listed = []  # a person took the bounce off the list
    assert shop.asked.count(None) == 1
    assert shop.pull(8)[1] == set()
    assert shop.asked[-1] is None


def test_hashes_of_a_ledger_that_was_lost_are_asked_for_anew(shop):
    shop.add("bounces", ANN)
    assert shop.pull(1)[1] == {ANN}
    new = replace(shop.night.delivery, ledger=PointedLedger())
    shop.night.delivery = new
    assert shop.pull(2)[1] == {ANN}
    assert shop.asked == [None, None]


def test_a_night_that_was_left_out_is_caught_up_with(shop):
    shop.pull(1)
    shop.add("spam_reports", BOB)
    shop.night.time.sleep(2 * 86_400)
    assert shop.pull(4)[1] == {BOB}
    assert None not in shop.asked[1:]
