"""The pace follows the provider's headers and the operator's word: a limit is kept, and used, through any restart."""

import argparse
import datetime as dt
import heapq
import itertools
import json
import random
from collections import Counter

import pytest
from fake_provider import START, VirtualTime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rehearsal_fixture import serve
from small_night import RUN

from jobs import set_pace as set_pace_job
from jobs.delivery import shared_pace
from jobs.delivery.client import RateLimit
from jobs.delivery.ledger import ChunkPlan, Ledger
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.request_book import RequestBook
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.delivery.timing import REAL_TIME, utc_now
from jobs.delivery.wire import rate_limit
from jobs.set_pace import set_pace
from jobs.show_delivery import show_delivery
from schemas.errors import GateError, RetryableMailError

WINDOWS = 6


class Limited:
    """A provider that takes `limit` requests a window of its clock, from whomever, and says how many are left."""

    def __init__(self, limit, seconds):
        self.limit, self.seconds, self.counts = limit, seconds, Counter()

    def count(self, at):
        """Count a request that arrives; give the headers of its answer and whether it was within the limit."""
        number = int(at // self.seconds)
        self.counts[number] += 1
        left = max(0, self.limit - self.counts[number])
        return RateLimit(self.limit, left, (number + 1) * self.seconds), self.counts[number] <= self.limit


def push(ledger, provider, *, rate, processes, latency, kills, seed, planned=True):
    """Let processes push for six windows of the provider; give the instants at which requests left.

    Answers are late by up to `latency` seconds each way, and so come in any order. A share `kills` of the requests is
    the last of its process, which dies before or after it leaves; another one begins up to two seconds later.
    """
    draw, time_ = random.Random(seed), VirtualTime()
    if planned:
        ledger.start_anew(time_, lambda name: None)
        ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
    book, left, order = RequestBook(ledger, RUN), [], itertools.count()
    begin = START.timestamp() + draw.uniform(0, provider.seconds)
    end, events = START.timestamp() + WINDOWS * provider.seconds, []

    def later(at, act, *given):
        heapq.heappush(events, (at, next(order), act, given))

    def reserve(at):
        ticket = book.begin_call("upsert", "x", requests_per_second=rate)
        if draw.random() < kills / 2:
            later(at + draw.uniform(0, 2), reserve)
        else:
            later(max(at, ticket.leave_at), leave, ticket)

    def leave(at, ticket):
        left.append(at)
        later(at + draw.uniform(0, latency), arrive, ticket)

    def arrive(at, ticket):
        said, is_within = provider.count(at)
        if draw.random() < kills / 2:
            later(at + draw.uniform(0, 2), reserve)
        else:
            later(at + draw.uniform(0, latency), hear, ticket, said, is_within)

    def hear(at, ticket, said, is_within):
        book.heard_limit(ticket, said)
        if not is_within:
            book.end_call(ticket, "failed", "429", is_paced=True, block_seconds=said.reset_at - at)
        later(at, reserve)

    for _ in range(processes):
        later(begin, reserve)
    while events:
        at, _, act, given = heapq.heappop(events)
        if at >= end:
            break
        time_.at = max(time_.at, dt.datetime.fromtimestamp(at, dt.UTC))
        act(at, *given)
    return left


def whole_windows(provider):
    """The counts of the windows that the push was at work in from end to end."""
    first = int(START.timestamp() // provider.seconds)
    return [provider.counts[number] for number in range(first + 1, first + WINDOWS)]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.integers(25, 80), st.sampled_from([10.0, 60.0]), st.floats(1.1, 12), st.integers(2, 8), st.floats(0, 0.3),
    st.sampled_from([0.0, 0.02]), st.integers(0, 2**16),
)  # fmt: skip
def test_the_providers_limit_is_used_and_never_exceeded(ledger, limit, seconds, times, processes, share, kills, seed):
    """The campaign's rate is 1.1 to 12 times what the provider takes.

    Never exceeded, however long answers are under way (here up to a third of what keeps all processes busy). Used to
    95 % where that is up to 2 % of a window each way; where it is longer, but for two requests a window.
    """
    provider, rate = Limited(limit, seconds), times * limit / seconds
    latency = share * processes * seconds / limit
    left = push(ledger, provider, rate=rate, processes=processes, latency=latency, kills=kills, seed=seed)
    counts = whole_windows(provider)
    assert len(left) > 4 * limit
    assert max(provider.counts.values()) <= limit
    lost = 0.05 + (kills and 0.02)  # a reservation that died with its process, on top
    unused = 2 if latency > 0.02 * seconds else 0
    assert sum(counts) >= ((1 - lost) * limit - unused) * len(counts)


def test_it_is_used_and_kept_through_fifty_restarts(ledger):
    """1.5 requests a second at most by the campaign, 1 by the provider; every twelfth request is a process's last."""
    provider = Limited(60, 60.0)
    left = push(ledger, provider, rate=1.5, processes=4, latency=1.0, kills=50 / 350, seed=3)
    counts = whole_windows(provider)
    assert len(left) > 300
    assert max(provider.counts.values()) <= 60
    assert sum(counts) >= 0.95 * 60 * len(counts)


def test_a_limit_above_the_campaigns_rate_changes_nothing(ledger):
    provider = Limited(1_000, 60.0)
    left = push(ledger, provider, rate=1.5, processes=4, latency=1.0, kills=0, seed=4)
    assert len(left) / (left[-1] - left[0]) == pytest.approx(1.5 * shared_pace.HEADROOM, rel=0.01)
    assert min(b - a for a, b in itertools.pairwise(left)) > 0.999 / 1.5


def test_whoever_shares_the_key_is_left_his_part(ledger):
    """Half of each window is gone to others: what is left is spread over it, and few requests are refused."""
    provider = Limited(60, 60.0)
    refused = 0
    count, draw, at_others = provider.count, random.Random(1), [START.timestamp()]

    def shared(at):
        nonlocal refused
        while at_others[0] < at:
            count(at_others[0])
            at_others[0] += draw.uniform(1, 3)
        said, is_within = count(at)
        refused += not is_within
        return said, is_within

    provider.count = shared
    left = push(ledger, provider, rate=3.0, processes=4, latency=0.5, kills=0, seed=5)
    assert 100 < len(left) < 220
    assert refused <= 2 * WINDOWS  # nobody foresees that the others take the last one


def test_what_remains_is_spread_and_nothing_leaves_after_the_last(ledger):
    time_ = VirtualTime()
    ledger.start_anew(time_, lambda name: None)
    ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
    book, now = RequestBook(ledger, RUN), START.timestamp()

    def reserve():
        return book.begin_call("upsert", "x", requests_per_second=10.0)

    first = reserve()
    assert (first.leave_at, first.number) == (now, 1)
    book.heard_limit(first, RateLimit(20, 3, now + 40))
    assert [round(reserve().leave_at - now) for _ in range(4)] == [10, 20, 30, 40]
    # The window is over for whoever reserves now; an answer of it that comes late brings nothing back.
    book.heard_limit(first, RateLimit(20, 0, now + 40))
    assert reserve().leave_at - now == pytest.approx(40 + 1 / 9.8)
    for nonsense in (RateLimit(20, 0, now), RateLimit(20, 0, (now + 40) * 1000), RateLimit(20, 0, 40)):
        book.heard_limit(reserve(), nonsense)
        assert show_delivery(ledger, RUN)["pace"]["reset_at"] is None


def test_answers_that_pass_one_another_count_once(ledger):
    """The second request was counted before the first: 18 remain after both, whichever is heard first."""
    time_, now = VirtualTime(), START.timestamp()
    for order in ((0, 1), (1, 0)):
        ledger.start_anew(time_, lambda name: None)
        ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
        book = RequestBook(ledger, RUN)
        tickets = [book.begin_call("upsert", "x", requests_per_second=10.0) for _ in range(2)]
        said = [RateLimit(20, 18, now + 60), RateLimit(20, 19, now + 60)]
        for which in order:
            book.heard_limit(tickets[which], said[which])
        pace = show_delivery(ledger, RUN)["pace"]
        assert (pace["remaining"], pace["reserved"]) == (18, 2)
        leaves = [book.begin_call("upsert", "x", requests_per_second=100.0).leave_at - now for _ in range(19)]
        assert sum(at < 60 for at in leaves) == 18


# The operator's word


def test_a_push_goes_on_at_the_rate_that_is_set_meanwhile(ledger):
    time_ = VirtualTime()
    ledger.start_anew(time_, lambda name: None)
    ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
    calls = [ProviderCalls(RequestBook(ledger, RUN), time_.timing, requests_per_second=2.0) for _ in range(3)]
    left = []

    def some(count):
        for number in range(count):
            calls[number % 3].write_once("upsert", "x", lambda: left.append(time_.seconds))
        return count / (left[-1] - left[-1 - count]) if len(left) > count else None

    some(10)
    assert some(50) == pytest.approx(2 * 0.98, rel=0.01)
    assert set_pace(ledger, RUN, 0.5)["requests_per_second"] == 0.5
    assert some(50) == pytest.approx(0.5 * 0.98, rel=0.01)
    set_pace(ledger, RUN, 20.0)  # also above the campaign's: an operator's word
    some(1)
    assert some(50) == pytest.approx(20 * 0.98, rel=0.01)
    set_pace(ledger, RUN, None)
    some(1)
    assert some(50) == pytest.approx(2 * 0.98, rel=0.01)
    pace = show_delivery(ledger, RUN)["pace"]
    assert (pace["reserved"], pace["requests_per_second"]) == (212, None)


def test_the_rate_may_be_set_before_the_first_request_and_is_checked(ledger, tmp_path):
    with pytest.raises(GateError, match="never planned"):
        set_pace(Ledger(f"sqlite:///{tmp_path}/new.db", utc_now), RUN, 1.0)
    ledger.start_anew(VirtualTime(), lambda name: None)
    ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
    set_pace(ledger, RUN, 0.5)
    book = RequestBook(ledger, RUN)
    first, second = (book.begin_call("upsert", "x", requests_per_second=2.0).leave_at for _ in range(2))
    assert (first, second - first) == (START.timestamp(), pytest.approx(1 / (0.5 * 0.98)))
    assert set_pace_job.rate("campaign") is None
    assert set_pace_job.rate("0.5") == 0.5
    for wrong in ("0", "-1", "nan", "inf", "10001", "fast"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a number"):
            set_pace_job.rate(wrong)


# The headers themselves


@pytest.mark.parametrize("missing", [None, "Limit", "Remaining", "Reset"])
def test_the_headers_of_a_limit_are_read_together_or_not_at_all(missing):
    headers = {"X-RateLimit-Limit": "500", "X-RateLimit-Remaining": "499", "X-RateLimit-Reset": "1392815263"}
    assert rate_limit(headers) == RateLimit(500, 499, 1_392_815_263.0)
    if missing:
        assert rate_limit({name: text for name, text in headers.items() if not name.endswith(missing)}) is None
        assert rate_limit({**headers, f"X-RateLimit-{missing}": "soon"}) is None


def test_a_push_over_http_keeps_below_the_limit_that_the_answers_tell(tmp_path):
    """Real requests, real seconds: 100 a second by the campaign, 25 in 2 s by the provider, and not one 429."""
    with serve(tmp_path / "rehearsal.sqlite", job_lag_seconds=0.0) as served:
        with served.http() as api:
            body = {"rate_limit_requests": 25, "rate_limit_seconds": 2.0}
            assert api.post("/_rehearsal/behaviour", json=body).is_success
        ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", utc_now)
        ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
        provider = SendGridProvider(served.api_key, served.host)
        assert provider.rate_limit() is None
        calls = ProviderCalls(
            RequestBook(ledger, RUN), REAL_TIME, requests_per_second=100.0, rate_limit=provider.rate_limit
        )
        upsert = json.dumps({"contacts": [{"email": "a@example.com"}]}).encode()
        began_at = utc_now()
        for _ in range(60):
            calls.write_once("upsert", "x", lambda: provider.upsert(upsert))
        seconds = (utc_now() - began_at).total_seconds()
        heard = provider.rate_limit()
        assert heard is not None
        assert heard.limit == 25
        answers = Counter(one.status for one in served.exchanges if one.method == "PUT")
    assert answers == {202: 60}
    assert 2.0 < seconds < 8.0


# Planted bugs


def deaf(patch):
    """Answers say what is left, and nobody listens."""
    patch.setattr(shared_pace, "heard", lambda *_: None)


def each_answer_alone(patch):
    """What an answer says is taken for what is left now, whatever was reserved since."""
    heard = shared_pace.heard

    def forgetful(connection, ledger, run, number, said):
        pace = shared_pace._pace(connection, run)
        heard(connection, ledger, run, pace.reserved, said)

    patch.setattr(shared_pace, "heard", forgetful)


def waits_for_the_reset_alone(patch):
    """Nothing is spread: all leaves at once, and then nothing until the reset; whoever passes another is too late."""

    def within(pace):
        return 0.0 if pace.reset_at is None or pace.remaining else pace.reset_at

    patch.setattr(shared_pace, "_within_limit", within)


def timid(patch):
    """A tenth of the limit is left unused."""
    patch.setattr(shared_pace, "HEADROOM", 0.9)


def deaf_to_the_operator(patch):
    """A rate that is set is written down and not read."""
    reserve = shared_pace.reserve

    def as_campaign(connection, ledger, run, requests_per_second):
        shared_pace.set_rate(connection, ledger, run, None)
        return reserve(connection, ledger, run, requests_per_second)

    patch.setattr(shared_pace, "reserve", as_campaign)


@pytest.mark.parametrize(
    ("mutant", "test"),
    [
        (deaf, test_it_is_used_and_kept_through_fifty_restarts),
        (each_answer_alone, test_it_is_used_and_kept_through_fifty_restarts),
        (waits_for_the_reset_alone, test_it_is_used_and_kept_through_fifty_restarts),
        (timid, test_it_is_used_and_kept_through_fifty_restarts),
        (deaf_to_the_operator, test_a_push_goes_on_at_the_rate_that_is_set_meanwhile),
    ],
)
def test_a_wrong_pace_is_caught(ledger, monkeypatch, mutant, test):
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        test(ledger)


def test_a_refusal_past_the_limit_is_still_heard(ledger):
    """429 with all three headers: everybody waits for the reset, by its own rule and by the limit's."""
    time_, now = VirtualTime(), START.timestamp()
    ledger.start_anew(time_, lambda name: None)
    ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
    calls = ProviderCalls(
        RequestBook(ledger, RUN), time_.timing, requests_per_second=10.0, rate_limit=lambda: RateLimit(20, 0, now + 30)
    )

    def refused():
        raise RetryableMailError("429", may_have_acted=False)

    with pytest.raises(RetryableMailError):
        calls.write_once("upsert", "x", refused)
    assert RequestBook(ledger, RUN).begin_call("upsert", "y", requests_per_second=10.0).leave_at == now + 30
