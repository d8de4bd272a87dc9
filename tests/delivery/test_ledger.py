"""The ledger: frozen plans, fenced chunks, one send, whoever asks and however many at once."""

import datetime as dt

import pytest
import sqlalchemy as sa

from jobs.delivery.ledger import ChunkPlan, Ledger, Run
from jobs.delivery.request_book import RequestBook
from schemas.errors import ConfigError, GateError

RUN = Run("campaign", dt.date(2026, 11, 2))
CHUNKS = [ChunkPlan(0, 0, 0, 10, 0.0), ChunkPlan(1, 1, 0, 5, 3.5)]
NOW = dt.datetime(2026, 11, 3, 8, tzinfo=dt.UTC)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(f"sqlite:///{tmp_path}/ledger.db", lambda: NOW)


def test_a_plan_is_frozen_once_anything_was_claimed(ledger):
    ledger.freeze_plan(RUN, "one", {"upsert": 15}, CHUNKS)
    assert ledger.freeze_plan(RUN, "two", {"upsert": 10}, CHUNKS[:1])[0] == "two"
    ledger.claim(RUN, 0)
    digest, chunks, start_at = ledger.freeze_plan(RUN, "three", {"upsert": 15}, CHUNKS)
    assert (digest, chunks, start_at) == ("two", CHUNKS[:1], NOW)
    assert ledger.plan_counts(RUN) == {"upsert": 10}


def intend(book, claim, request=0):
    return book.intend(
        claim, request, sha256="x", size=1, contacts=1, receipt={"name": f"{claim.epoch}"}, requests_per_second=1000.0
    )


def confirm(book, claim, name, request=0):
    book.accept(claim, request, intend(book, claim, request), "job")
    (made,) = [one for one in book.of_chunk(claim.plan.chunk) if (one.epoch, one.request) == (claim.epoch, request)]
    book.settle(claim, made, "confirmed", {"name": name}, {"delivered": 10})
    book.ledger.close_chunk(RUN, claim, "confirmed", {"delivered": 10})


def test_a_worker_that_was_replaced_changes_nothing(ledger):
    ledger.freeze_plan(RUN, "one", {}, CHUNKS)
    book = RequestBook(ledger, RUN)
    old = ledger.claim(RUN, 0)
    ticket = intend(book, old)
    new = ledger.claim(RUN, 0)
    for write in (
        lambda: ledger.close_chunk(RUN, old, "confirmed", {}),
        lambda: ledger.beat(RUN, old),
        lambda: ledger.pin_catalog(RUN, old, "manifest"),
        lambda: intend(book, old, 1),
        lambda: book.accept(old, 0, ticket, "job"),
        lambda: book.begin_call("upsert", "x", claim=old),
        lambda: book.settle(old, book.of_chunk(0)[0], "confirmed", {}, {}),
    ):
        with pytest.raises(GateError, match="epoch 1 was replaced by 2"):
            write()
    assert [(one.epoch, one.state, one.job_id) for one in book.of_chunk(0)] == [(1, "intended", None)]
    confirm(book, new, "part")
    again = ledger.claim(RUN, 0)
    assert again.is_done
    assert again.counts == {"delivered": 10}
    with pytest.raises(GateError, match=r"1 of 2 chunks are not confirmed: 1 \(planned\)"):
        ledger.receipts(RUN)


def test_a_ledger_without_the_fence_is_caught(ledger, monkeypatch):
    """Planted bug: nobody checks the epoch, and the old worker's receipt stands beside the new one's."""
    ledger.freeze_plan(RUN, "one", {}, CHUNKS[:1])
    book, old = RequestBook(ledger, RUN), ledger.claim(RUN, 0)
    new = ledger.claim(RUN, 0)
    monkeypatch.setattr(Ledger, "check_epoch", lambda *_: None)
    confirm(book, new, "new")
    confirm(book, old, "old")
    assert [file["name"] for file in ledger.receipts(RUN)[0][2]] == ["old", "new"]


def test_a_chunk_is_taken_only_as_it_was_seen(ledger):
    ledger.freeze_plan(RUN, "one", {}, CHUNKS)
    first = ledger.claim(RUN, 0, ledger.holder(RUN, 0))
    seen = ledger.holder(RUN, 0)
    ledger.beat(RUN, first)
    assert ledger.claim(RUN, 0, seen) is None  # the holder lives
    assert ledger.claim(RUN, 0, ledger.holder(RUN, 0)).epoch == 2


def test_calls_are_a_history_that_nobody_changes(ledger):
    ledger.freeze_plan(RUN, "one", {}, CHUNKS)
    book = RequestBook(ledger, RUN)
    assert not book.has_begun("create_draft")
    for outcome in ("ok", "failed", "unknown"):
        book.end_call(book.begin_call("create_draft", outcome), outcome, "why")
    book.begin_call("create_draft", "cut off")
    assert [(call["subject"], call["outcome"]) for call in book.history()] == [
        ("ok", "ok"), ("failed", "failed"), ("unknown", "unknown"), ("cut off", "unknown"),
    ]  # fmt: skip
    assert book.has_begun("create_draft")
    for change in ("UPDATE calls SET event = 'ok'", "DELETE FROM calls"):
        with pytest.raises(sa.exc.IntegrityError, match="append-only"), ledger.writing() as connection:
            connection.execute(sa.text(change))


def test_dates_of_a_campaign_are_pushed_in_order(ledger):
    ledger.freeze_plan(RUN, "one", {}, CHUNKS)
    old = ledger.claim(RUN, 0)
    tomorrow = Run(RUN.campaign, RUN.send_date + dt.timedelta(days=1))
    ledger.freeze_plan(tomorrow, "two", {}, CHUNKS)
    with pytest.raises(GateError, match="replaced"):
        ledger.beat(RUN, old)
    assert ledger.claim(RUN, 0).state == ledger.claim(RUN, 1).state == "expired"
    yesterday = Run(RUN.campaign, RUN.send_date - dt.timedelta(days=1))
    with pytest.raises(GateError, match="was planned already"):
        ledger.freeze_plan(yesterday, "zero", {}, CHUNKS)
    assert ledger.freeze_plan(Run("other", yesterday.send_date), "zero", {}, CHUNKS)[0] == "zero"


def test_a_run_that_was_cancelled_stays_so(ledger):
    ledger.freeze_plan(RUN, "one", {}, CHUNKS)
    claim, book = ledger.claim(RUN, 0), RequestBook(ledger, RUN)
    ledger.stop(RUN, "wrong prices")
    with pytest.raises(GateError, match="replaced"):
        intend(book, claim)
    with pytest.raises(GateError, match=r"cancelled \(wrong prices\)"):
        book.begin_call("schedule", "x")
    assert ledger.claim(RUN, 1).state == "expired"


def test_a_ledger_of_another_version_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/old.db"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE plans (campaign TEXT)"))
    engine.dispose()
    with pytest.raises(ConfigError, match="version 1, this code writes 4"):
        Ledger(url, lambda: NOW)


def test_what_was_never_planned_is_refused(ledger):
    with pytest.raises(GateError, match="never planned"):
        ledger.plan(RUN)
    with pytest.raises(GateError, match="not in the plan"):
        ledger.claim(RUN, 7)
    assert ledger.send(RUN) is None
    assert not ledger.is_reconciled(RUN)


def _open_and_choose(url, start, number, results):
    start.wait()
    ledger = Ledger(url, lambda: NOW)
    results.put((ledger.key("uid"), ledger.choose_send(RUN, f"single-send-{number}", 10)))


def test_eight_processes_that_open_a_new_ledger_agree_on_one_key_and_one_send(tmp_path, forks):
    for trial in range(3):
        url = f"sqlite:///{tmp_path}/ledger-{trial}.db"
        start, results = forks.Barrier(8), forks.Queue()
        workers = [forks.Process(target=_open_and_choose, args=(url, start, n, results)) for n in range(8)]
        for worker in workers:
            worker.start()
        answers = {results.get(timeout=60) for _ in workers}
        for worker in workers:
            worker.join()
        assert len(answers) == 1
        key, _ = answers.pop()
        assert len(key) == 16


def test_commits_survive_power_loss(tmp_path):
    import sqlite3

    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", lambda: NOW)
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert sqlite3.sqlite_version_info >= (3, 35)  # upserts
