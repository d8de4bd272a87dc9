"""A worker that waits for another one's lease reads the chunk meanwhile, and does nothing else before it is over."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from small_night import DATE, PLAN, RUN, Death, Night, freeze, write

from jobs.delivery import chunk_reader, provider_calls
from jobs.delivery.chunk_lease import first_sight, take_chunk
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.chunk_reader import ChunkReader
from jobs.delivery.run_context import Delivery
from jobs.delivery.timing import Timing
from schemas.errors import GateError, StorageError
from schemas.layout import Partition
from schemas.tables import USERS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def night(base, tmp_path, ledger):
    return Night(base, tmp_path / "lake", ledger)


@pytest.fixture
def readings(night, monkeypatch):
    """The instants at which a chunk was read."""
    return watch(night, monkeypatch)


def watch(night, monkeypatch):
    found, read_chunk = [], chunk_reader.read_chunk

    def note(*arguments, **options):
        found.append(night.time.seconds)
        return read_chunk(*arguments, **options)

    monkeypatch.setattr(chunk_reader, "read_chunk", note)
    return found


def die_after_a_request(night):
    """The first worker of chunk 0 dies when the provider has its first request, and nobody has said what came of it."""
    freeze(night.delivery)
    point = night.provider.point
    night.provider.point = die_at_the_first_request
    with pytest.raises(Death):
        push_chunk(night.delivery, 0)
    night.provider.point = point


def die_at_the_first_request(name):
    if name == "upsert was acted upon":
        raise Death


def test_what_a_dead_worker_left_is_read_before_its_lease_ends(night, readings):
    die_after_a_request(night)
    assert len(readings) == 1
    sent, asked, began = len(night.provider.upserts), len(night.provider.calls), night.time.seconds
    push_chunk(night.delivery, 0)
    assert readings[1:] == [began], "it is read once, at once"
    since = [at for at, _ in night.provider.calls[asked:]]
    assert len(night.provider.upserts) > sent > 0
    assert min(since) >= began + provider_calls.LEASE_SECONDS, "nothing is asked before the lease ends"


def test_who_reads_ahead_pushes_what_is_there_when_the_chunk_is_its_own(night, readings):
    """The users are published anew while the second worker waits."""
    die_after_a_request(night)
    sent, users = len(night.provider.upserts), night.lake.manifest(Partition("users", DATE))
    gone = sorted(user for user, (action, _) in PLAN.items() if action == "upsert")

    def publish_and_sleep(seconds):
        night.time.sleep(seconds)
        if night.lake.manifest(Partition("users", DATE)) == users:
            move_everybody(night.lake)

    second = Delivery(
        night.lake, night.delivery.campaign, RUN, night.ledger, night.provider, "second",
        Timing(lambda: night.time.at, lambda: night.time.seconds, publish_and_sleep),
    )  # fmt: skip
    push_chunk(second, 0)
    later = b"".join(body for _, body in night.provider.upserts[sent:])
    assert later.count(b"moved-") >= 2, "the new addresses are in the bodies"
    assert not any(f'"{user}@'.encode() in later for user in gone)
    assert len(readings) == 3, "by the first worker, ahead, and once more"


def move_everybody(lake):
    """Publish the date's users anew, with other addresses."""
    partition = Partition("users", DATE)
    rows = [{**row, "email": f"moved-{row['email']}"} for row in lake.read(lake.manifest(partition)).to_pylist()]
    write(lake, partition, pa.Table.from_pylist(rows, schema=USERS.schema))


@pytest.mark.parametrize("loading", [0.0, 3.3, 4.999, 60.0])
def test_the_lease_runs_from_the_first_sight(night, readings, loading):
    """What a job loads after its first look is no longer waited for, and no look ends later than the lease."""
    die_after_a_request(night)
    asked, began = len(night.provider.calls), night.time.seconds
    seen = first_sight(night.ledger, RUN, 0, night.delivery.timing)
    night.time.sleep(loading)
    push_chunk(night.delivery, 0, seen)
    due = began + max(provider_calls.LEASE_SECONDS, loading)
    first = min(at for at, _ in night.provider.calls[asked:])
    assert due <= first < due + 0.05
    assert readings[1:] == [began + loading], "it is read once, at once"


def test_a_sign_of_life_after_the_first_sight_begins_the_lease_anew(night, readings):
    """A worker that lived while the second one loaded is not replaced, however long the loading took."""
    freeze(night.delivery)
    claim = night.ledger.claim(RUN, 0)
    seen = first_sight(night.ledger, RUN, 0, night.delivery.timing)
    night.time.sleep(60.0)
    night.ledger.beat(RUN, claim)
    began = night.time.seconds
    push_chunk(night.delivery, 0, seen)
    assert len(readings) == 1
    assert night.provider.calls
    assert min(at for at, _ in night.provider.calls) >= began + provider_calls.LEASE_SECONDS


def test_a_sign_of_life_after_the_last_look_keeps_the_chunk(night):
    """The claim names what the first look saw: a beat in the very last instant makes it void."""
    freeze(night.delivery)
    claim = night.ledger.claim(RUN, 0)
    seen = first_sight(night.ledger, RUN, 0, night.delivery.timing)
    night.time.sleep(60.0)
    beats = []

    def beat():
        beats.append(night.time.seconds)
        night.ledger.beat(RUN, claim)

    taken = take_chunk(night.ledger, RUN, 0, night.delivery.timing, meanwhile=beat, seen=seen)
    assert taken.epoch == claim.epoch + 1
    assert len(beats) == 1
    assert night.time.seconds >= beats[0] + provider_calls.LEASE_SECONDS


def test_a_first_sight_of_no_chunk_leaves_the_word_to_the_claim(night):
    freeze(night.delivery)
    assert first_sight(night.ledger, RUN, 99, night.delivery.timing) is None
    with pytest.raises(GateError, match="not in the plan"):
        push_chunk(night.delivery, 99)


_LOOKS_FIRST = """
import datetime, pathlib, sys
import jobs.push_chunk as job
slow = ("numba", "numpy", "pyarrow", "pydantic", "scipy", "sendgrid")
job.first_sight = lambda *_: sys.exit(", ".join(name for name in slow if name in sys.modules) or 77)
job.main(lake="none", date=datetime.date(2026, 11, 2), run_id="r", campaign=pathlib.Path("none/spring.toml"),
         ledger="sqlite://", provider=None, chunk=0)
"""


def test_the_job_looks_before_it_loads():
    found = subprocess.run([sys.executable, "-c", _LOOKS_FIRST], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 77, found.stderr


def test_a_chunk_that_nobody_had_is_read_once(night, readings):
    freeze(night.delivery)
    push_chunk(night.delivery, 0)
    assert len(readings) == 1


def test_what_can_not_be_read_ahead_is_said_when_the_chunk_is_claimed(night, monkeypatch):
    """And not before: the chunk may be another's, who ends it well."""
    die_after_a_request(night)
    began, states = night.time.seconds, []

    def broken(*_, **__):
        states.append(night.ledger.holder(RUN, 0).epoch)
        raise StorageError("a file is missing")

    monkeypatch.setattr(chunk_reader, "read_chunk", broken)
    with pytest.raises(StorageError):
        push_chunk(night.delivery, 0)
    assert states == [1, 2], "first ahead, under the other's epoch, then under its own"
    assert night.time.seconds >= began + provider_calls.LEASE_SECONDS
    assert night.ledger.holder(RUN, 0).state == "released"


def test_where_no_worker_saw_a_catalog_nothing_is_read_ahead(night, readings):
    freeze(night.delivery)
    night.ledger.claim(RUN, 0)
    ChunkReader(night.delivery, 0).read_ahead()
    assert readings == []
    push_chunk(night.delivery, 0)
    assert len(readings) == 1
