"""A worker that waits for another one's lease reads the chunk meanwhile, and does nothing else before it is over."""

import pyarrow as pa
import pytest
from small_night import DATE, PLAN, RUN, Death, Night, freeze, write

from jobs.delivery import chunk_reader, provider_calls
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.chunk_reader import ChunkReader
from jobs.delivery.run_context import Delivery
from jobs.delivery.timing import Timing
from schemas.errors import StorageError
from schemas.layout import Partition
from schemas.tables import USERS

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
