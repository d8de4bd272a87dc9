"""Mail Send that dies at any point: nobody gets two mails, everybody is in one outcome, and events end the unknown."""

import pytest
from fake_provider import NO_FAULTS, Faults
from mail_night import ERASED, UPSERTS, MailNight, users_of

SEEDS = (1, 2, 3, 4)

pytestmark = pytest.mark.usefixtures("small", "small_mails")


def mail_faults(seed):
    return Faults(seed, no_answer_before=0.07, no_answer_after=0.07, over_limit=0.05)


def test_a_night_of_mails_without_faults(mail_base, tmp_path, ledger):
    night = MailNight(mail_base, tmp_path / "lake", ledger)
    result = night.run()
    assert night.differences() == []
    assert users_of(night.lake, "delivered") == set(UPSERTS) - {ERASED}
    assert result["unknown"] == 0
    assert len(night.provider.bodies) >= 3
    assert len(night.points) > 25
    assert {name for name in night.points if "acted" in name} >= {
        "send_mails was acted upon", "create_batch was acted upon", "hold_batch was acted upon",
        "ensure_template was acted upon", "release_batch was acted upon",
    }  # fmt: skip


@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_mails_are_at_most_one_wherever_the_night_dies(mail_base, tmp_path, ledger, seed):
    """Without faults at every point; each seed at every twelfth. All of them: make scoreboard."""
    first, step = (0, 1) if seed is None else (3 * (seed - 1), 12)
    nights, mailed_twice = die_at_points(mail_base, tmp_path, ledger, seed, first, step)
    assert nights >= (40 if seed is None else 4)
    assert mailed_twice == 0


@pytest.mark.scoreboard
def test_mails_are_at_most_one_at_every_point_of_every_seed(mail_base, tmp_path, ledger, scoreboard):
    found = [die_at_points(mail_base, tmp_path / str(seed), ledger, seed, 0, 1) for seed in (None, *SEEDS)]
    nights, mailed_twice = (sum(column) for column in zip(*found, strict=True))
    scoreboard.add("Mail Send: nights that died, one at each point, 5 seeds", str(nights))
    scoreboard.add("Mail Send: users who got two mails", str(mailed_twice))


def die_at_points(mail_base, tmp_path, ledger, seed, first, step):
    """Let nights die at some of the points of a night with a seed's faults; count them, and who was mailed twice."""
    faults = NO_FAULTS if seed is None else mail_faults(seed)
    whole = MailNight(mail_base, tmp_path / "whole", ledger, faults=faults)
    whole.run()
    assert whole.differences() == []
    assert len(whole.points) > 25
    unknown = settled = twice = 0
    ks = range(first, len(whole.points), step)
    for k in ks:
        night = MailNight(mail_base, tmp_path / f"lake-{k}", ledger, faults=faults, die_at=k)
        night.run()
        twice += sum(number > 1 for number in night.provider.mails_per_address.values())
        where = f"seed {seed}, died at point {k}: {whole.points[k]}"
        assert night.deaths == 1, where
        assert night.differences() == [], where
        lost = users_of(night.lake, "unknown")
        unknown += len(lost)
        if seed is None:
            assert len(lost) <= 2, f"{where}: more than the request under way is unknown"
        if not lost and k % 4:
            settled += 1
            continue
        night.settle(tmp_path / f"events-{k}")
        assert night.differences() == [], where
        if not users_of(night.lake, "unknown"):
            settled += 1
            delivered = {user for user, is_mailed in night.truth.items() if is_mailed}
            assert users_of(night.lake, "delivered") == delivered, where
        else:  # only where no request was answered does silence say nothing
            assert not users_of(night.lake, "delivered"), where
    assert unknown > 0
    assert settled > 0.8 * len(ks)
    return len(ks), twice
