"""One door to the item models: fit one from its settings, keep it for the tasks of a job, ask it for lists.

The settings are in schemas/item_models.py. Whatever the model, the answer is rows of one items x items matrix, cut to
the best others of each item.
"""

from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter
from scipy import sparse

from jobs.lake.scratch import Scratch
from jobs.ranking.cooccurrence import CooccurrenceItems
from jobs.ranking.ease import EaseItems
from jobs.ranking.sparse_product import check_finite
from schemas.item_models import EaseModel, ItemModelSettings

_SETTINGS: TypeAdapter[ItemModelSettings] = TypeAdapter(ItemModelSettings)


class ItemModel(Protocol):
    """A fitted model."""

    def block(self, first: int, last: int, depth: int, *, signed: bool = False, threads: int = 1) -> sparse.csr_array:
        """Give the best `depth` others of items first…last-1.

        Shapes: (last - first, items), float32; row r lists the others of item first + r, best first, ties by item,
                never the item itself. Scores are finite and above 0; signed: the largest by size, and those below 0
                speak against the other item (only EASE has such).
        Raises: GateError if a score is not finite.
        The same lists come out whatever blocks are asked for, on any number of threads.
        """
        ...

    def save(self, scratch: Scratch, name: str) -> None: ...


def fit(
    interactions: sparse.csr_array,
    settings: ItemModelSettings,
    *,
    by_items: sparse.csr_array | None = None,
    threads: int = 1,
) -> ItemModel:
    """Fit the model that the settings name.

    Shapes: interactions (users, items), float32 weights above 0; by_items (items, users), the same from the other side,
            where the caller has it: with 40 million of them it takes seconds to make.
    Raises: ConfigError if the model cannot take that many items; GateError if the weights are not finite.
    """
    check_finite(interactions)
    if isinstance(settings, EaseModel):
        return EaseItems.fit(interactions, settings)
    return CooccurrenceItems.fit(interactions, settings, by_items=by_items, threads=threads)


def save(model: ItemModel, settings: ItemModelSettings, scratch: Scratch, name: str) -> None:
    """Keep a model with its settings, for the tasks of this job."""
    model.save(scratch, name)
    _settings_file(scratch, name).write_bytes(_SETTINGS.dump_json(settings))


def load(scratch: Scratch, name: str) -> ItemModel:
    """Map a model that `save` kept: its pages are shared by every task that maps it."""
    settings = _SETTINGS.validate_json(_settings_file(scratch, name).read_bytes())
    if isinstance(settings, EaseModel):
        return EaseItems.load(scratch, name)
    return CooccurrenceItems.load(scratch, name, settings)


def _settings_file(scratch: Scratch, name: str) -> Path:
    return scratch.folder / f"{name}.settings.json"
