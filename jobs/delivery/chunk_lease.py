"""The lease of a chunk: whoever wants it waits until the signs of life of the worker that has it are over.

A worker lives as long as its signs of life go on, whatever any clock says: five seconds without one, and it is
replaced. Should it wake up, it finds its epoch gone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jobs.delivery.ledger import Claim, Holder, Ledger, Run
from jobs.delivery.provider_calls import LEASE_SECONDS
from jobs.delivery.timing import Timing
from schemas.errors import GateError

_LOOK_SECONDS: Final = 0.5  # between two looks at whether another worker lives
_SHORTEST_LOOK_SECONDS: Final = 0.01  # what is left of a lease may be too short for a clock to move


@dataclass(frozen=True)
class Sight:
    """Who was seen to have a chunk, and since when at the latest (this process' monotonic clock)."""

    holder: Holder
    since: float


def first_sight(ledger: Ledger, run: Run, chunk: int, timing: Timing) -> Sight | None:
    """Look who has a chunk, for a `take_chunk` that comes later; None if there is no such chunk, which that one says.

    Taken before whatever is slow to load, so that the lease of a worker that died runs meanwhile.
    """
    try:
        return _look(ledger, run, chunk, timing)
    except GateError:
        return None


def take_chunk(
    ledger: Ledger,
    run: Run,
    chunk: int,
    timing: Timing,
    *,
    meanwhile: Callable[[], None] = lambda: None,
    seen: Sight | None = None,
) -> Claim:
    """Claim a chunk as soon as no living worker has it; what is to be done while it waits is done once, `meanwhile`.

    The lease is counted from the last change that this process saw: from `seen`, if nothing changed since. The claim
    names the holder's epoch and beats as they were seen then: a sign of life after that makes the wait begin anew.
    """
    waits = iter([meanwhile])
    sight = _look(ledger, run, chunk, timing, seen)
    while True:
        # However long this takes, the chunk is claimed only as it was seen before it.
        if sight.holder.state == "in_flight" and (work := next(waits, None)):
            work()
        while sight.holder.state == "in_flight" and (left := sight.since + LEASE_SECONDS - timing.monotonic()) > 0:
            timing.sleep(max(min(left, _LOOK_SECONDS), _SHORTEST_LOOK_SECONDS))
            sight = _look(ledger, run, chunk, timing, sight)
        claim = ledger.claim(run, chunk, sight.holder)
        if claim is not None:
            return claim
        sight = _look(ledger, run, chunk, timing, sight)


def _look(ledger: Ledger, run: Run, chunk: int, timing: Timing, before: Sight | None = None) -> Sight:
    """Look who has a chunk; as `before` if nothing changed since then.

    Raises: GateError if the plan has no such chunk.
    """
    holder, now = ledger.holder(run, chunk), timing.monotonic()
    return before if before is not None and before.holder == holder else Sight(holder, now)
