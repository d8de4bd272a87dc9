"""What an explanation says of one user's list, and how it is written out. User ids may stand in it, addresses never."""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Cause:
    """An item of the user's own that brought a recommendation: score = similarity x weight x boost, summed up."""

    item_id: str
    title: str | None
    similarity: float
    weight: float


@dataclasses.dataclass(frozen=True)
class Kept:
    """An item of the list. `source` is the user's own history or wishlist, a fallback step, or exposure."""

    item_id: str
    title: str | None
    score: float
    source: str
    boost: float
    because: tuple[Cause, ...]
    why: str | None = None  # of a new item: what it is there for


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A candidate that is not in the list, with the first rule that kept it out and the event that triggered it.

    `event_item_id` is another item than the candidate where a rule reached its twin.
    """

    item_id: str
    title: str | None
    score: float
    rule: str
    event: str | None = None
    event_item_id: str | None = None
    event_at: str | None = None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One user's list of one campaign and date. `candidates` = kept + dropped."""

    user_id: str
    campaign: str
    date: dt.date
    outcome: str
    kept: tuple[Kept, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]

    @property
    def candidates(self) -> int:
        """Items that were looked at."""
        return len(self.kept) + len(self.dropped)

    @property
    def fallback_steps(self) -> tuple[str, ...]:
        """The steps of the fallback ladder that filled the list, in the list's order."""
        return tuple(dict.fromkeys(kept.source for kept in self.kept if not kept.because and kept.why is None))

    def as_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        fields = dataclasses.asdict(self) | {"date": self.date.isoformat()}
        return fields | {"candidates": self.candidates, "fallback_steps": list(self.fallback_steps)}

    def lines(self) -> Iterator[str]:
        """Write it for people."""
        yield (
            f"{self.campaign} {self.date}, user {self.user_id}: {self.outcome}, {self.candidates} candidates = "
            f"{len(self.kept)} kept + {len(self.dropped)} dropped"
        )
        yield from (f"  note: {note}" for note in self.notes)
        yield f"  fallback: {', '.join(self.fallback_steps) or 'none used'}"
        for place, kept in enumerate(self.kept, 1):
            boost = f", boost {kept.boost:g}" if kept.boost != 1 else ""
            why = f": {kept.why}" if kept.why else ""
            yield f"  {place}. {_named(kept)}  score {kept.score:.4f} from {kept.source}{boost}{why}"
            for cause in kept.because:
                product = cause.similarity * cause.weight
                yield f"       {_named(cause)}: {cause.similarity:.4f} x {cause.weight:.4f} = {product:.4f}"
        for dropped in self.dropped:
            yield f"  -  {_named(dropped)}  score {dropped.score:.4f}, dropped by {dropped.rule}{_event(dropped)}"


def _named(item: Cause | Kept | Dropped) -> str:
    return f"{item.item_id} {item.title}" if item.title else f"{item.item_id} (not in the catalog)"


def _event(dropped: Dropped) -> str:
    if dropped.event is None:
        return ""
    other = f" of {dropped.event_item_id}" if dropped.event_item_id != dropped.item_id else ""
    return f": {dropped.event}{other} at {dropped.event_at}"
