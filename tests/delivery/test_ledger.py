"""The ledger: frozen plans, fenced chunks, one send, whoever asks and however many at once."""

import datetime as dt
import multiprocessing

import pytest

from jobs.delivery.ledger import ChunkPlan, Ledger, Run
from schemas.errors import GateError

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


def test_a_worker_that_was_replaced_changes_nothing(ledger):
    ledger.freeze_plan(RUN, "one", {}, CHUNKS)
    old = ledger.claim(RUN, 0)
    new = ledger.claim(RUN, 0)
    with pytest.raises(GateError, match="epoch 1 was replaced by 2"):
        ledger.confirm_chunk(RUN, old, {}, {})
    with pytest.raises(GateError, match="replaced"):
        ledger.record_request(RUN, old, 0, sha256="x", size=1, contacts=1, state="intended")
    ledger.confirm_chunk(RUN, new, {"name": "part"}, {"delivered": 10})
    again = ledger.claim(RUN, 0)
    assert again.is_confirmed
    assert again.counts == {"delivered": 10}
    with pytest.raises(GateError, match=r"1 of 2 chunks are not confirmed: 1 \(planned\)"):
        ledger.receipts(RUN)


def test_a_ledger_without_the_fence_is_caught(ledger, monkeypatch):
    """Planted bug: nobody checks the epoch, and the old worker's receipt replaces the new one's."""
    ledger.freeze_plan(RUN, "one", {}, CHUNKS[:1])
    old, new = ledger.claim(RUN, 0), ledger.claim(RUN, 0)
    monkeypatch.setattr(Ledger, "_check_epoch", lambda *_: None)
    ledger.confirm_chunk(RUN, new, {"name": "new"}, {})
    ledger.confirm_chunk(RUN, old, {"name": "old"}, {})
    assert ledger.receipts(RUN)[0][1] == {"name": "old"}


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


def test_eight_processes_that_open_a_new_ledger_agree_on_one_key_and_one_send(tmp_path):
    context = multiprocessing.get_context("spawn")
    for trial in range(3):
        url = f"sqlite:///{tmp_path}/ledger-{trial}.db"
        start, results = context.Barrier(8), context.Queue()
        workers = [context.Process(target=_open_and_choose, args=(url, start, n, results)) for n in range(8)]
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
