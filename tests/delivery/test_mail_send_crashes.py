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
    faults = NO_FAULTS if seed is None else mail_faults(seed)
    whole = MailNight(mail_base, tmp_path / "whole", ledger, faults=faults)
    whole.run()
    assert whole.differences() == []
    assert len(whole.points) > 25
    unknown = settled = 0
    for k in range(len(whole.points)):
        night = MailNight(mail_base, tmp_path / f"lake-{k}", ledger, faults=faults, die_at=k)
        night.run()
        where = f"seed {seed}, died at point {k}: {whole.points[k]}"
        assert night.deaths == 1, where
        assert night.differences() == [], where
        lost = users_of(night.lake, "unknown")
        unknown += len(lost)
        if seed is None:
            assert len(lost) <= 2, f"{where}: more than the request under way is unknown"
        night.settle(tmp_path / f"events-{k}")
        assert night.differences() == [], where
        if not users_of(night.lake, "unknown"):
            settled += 1
            delivered = {user for user, is_mailed in night.truth.items() if is_mailed}
            assert users_of(night.lake, "delivered") == delivered, where
        else:  # only where no request was answered does silence say nothing
            assert not users_of(night.lake, "delivered"), where
    assert unknown > 0
    assert settled > 0.9 * len(whole.points)
