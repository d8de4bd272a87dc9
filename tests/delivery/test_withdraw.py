"""Who is suppressed or erased between the plan and the send is not mailed, whenever that happens and whatever dies."""

import pytest
from small_night import RUN, Night, address

from jobs.delivery.people_book import bury, hashes_of, withdrawn
from jobs.reconcile_push import reconcile
from jobs.schedule_send import schedule_send
from schemas.errors import GateError

KINDS = ("bounces", "invalid_emails", "spam_reports", "unsubscribes", "group_unsubscribes")
LEAVER, STAYER = "user-00", "user-01"
LAST_LOOK = "suppressed_addresses was acted upon"


pytestmark = pytest.mark.usefixtures("small")


def mailed(night):
    (mails,) = night.provider.mails.values()
    return set(mails)


def leave_at(night, moment, act):
    """Let somebody leave right after the night's point of that number."""
    count = night.point

    def point(name):
        count(name)
        if len(night.points) == moment + 1:
            act()

    night.provider.point = night.ledger.point = point


def test_who_leaves_before_the_last_look_is_not_mailed_whatever_the_moment(base, tmp_path, ledger):
    quiet = Night(base, tmp_path / "quiet", ledger)
    quiet.run()
    assert {address(LEAVER), address(STAYER)} <= mailed(quiet)
    (look,) = (number for number, name in enumerate(quiet.points) if name == LAST_LOOK)
    moments = sorted({*range(0, look, max(1, look // 12)), look - 2, look - 1})
    assert len(moments) >= 12
    for moment in moments:
        night = Night(base, tmp_path / f"night-{moment}", ledger)
        leave_at(night, moment, lambda n=night: n.provider.suppressed.append(("unsubscribes", address(LEAVER))))
        result = night.run()
        assert mailed(night) == mailed(quiet) - {address(LEAVER)}, quiet.points[moment]
        assert (result["withdrawn"], result["recipients"]) == (1, len(mailed(quiet)) - 1)
        assert withdrawn(ledger, RUN) == {"unsubscribes": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_suppression_counts(base, tmp_path, ledger, kind):
    night = Night(base, tmp_path / "night", ledger)
    night.provider.suppressed.append((kind, address(LEAVER).upper()))
    night.run()
    assert address(LEAVER) not in mailed(night)
    assert address(STAYER) in mailed(night)
    # The contact stays, with today's items: only the list is who is mailed.
    assert address(LEAVER) in night.provider.contacts
    # Books that are balanced once more know of it.
    assert reconcile(night.delivery)["delivered"] == len(mailed(night)) + 1


def test_whatever_dies_on_the_way_nobody_who_left_is_mailed(base, tmp_path, ledger):
    def leaving(folder, die_at=None):
        night = Night(base, folder, ledger, die_at=die_at)
        night.provider.suppressed.append(("unsubscribes", address(LEAVER)))
        return night

    whole = leaving(tmp_path / "whole")
    whole.run()
    start = whole.points.index("create_draft was acted upon")
    assert len(whole.points) - start >= 8
    for die_at in range(start, len(whole.points)):
        night = leaving(tmp_path / f"night-{die_at}", die_at)
        night.run()
        assert mailed(night) == mailed(whole), whole.points[die_at]
    assert address(LEAVER) not in mailed(whole)


def test_who_is_erased_during_the_push_is_not_mailed_and_no_contact_again(base, tmp_path, ledger):
    quiet = Night(base, tmp_path / "quiet", ledger)
    quiet.run()
    moment = next(number for number, name in enumerate(quiet.points) if name == "upsert was acted upon")
    night = Night(base, tmp_path / "night", ledger)
    leave_at(night, moment, lambda: bury(ledger, {"address": hashes_of(ledger, [address(LEAVER)], "address")}))
    night.run()
    assert mailed(night) == mailed(quiet) - {address(LEAVER)}
    assert address(LEAVER) not in night.provider.contacts
    assert withdrawn(ledger, RUN) == {"erased": 1}


def test_nothing_is_sent_as_long_as_somebody_who_left_is_on_the_list(base, tmp_path, ledger):
    night = Night(base, tmp_path / "night", ledger)
    night.provider.suppressed.append(("unsubscribes", address(LEAVER)))
    night.provider.remove_from_list = lambda list_id, contact_ids: None  # accepted, and never done
    with pytest.raises(GateError, match="1 people who were suppressed or erased since the plan are still on the list"):
        night.run()
    assert not night.provider.mails
    # A person removes them at the provider.
    del night.provider.remove_from_list
    assert schedule_send(night.delivery)["withdrawn"] == 1
