"""Great Expectations over a partition's figures: the suite of its table in schemas/expectations/ must hold.

The only module that imports great_expectations (3.4 to 3.9 s of CPU on a busy machine and 133 MB, once a process;
judging takes 0.05 s whatever the partition's size). A result is never taken unread: an expectation that raised, was not
evaluated or is not in the answer is told apart from one that holds, and none of these passes.
"""

import contextlib
import functools
import gc
import importlib.util
import json
import logging
import os
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from schemas.errors import GateError

# Two fifths of the import, for one expectation (of Kullback-Leibler divergence) that no suite here has.
_UNUSED: Final = ("scipy.stats", "altair")

SUITES: Final = Path(__file__).resolve().parents[2] / "schemas" / "expectations"

Outcome = Literal["holds", "fails", "error"]


def evaluate(
    table: str, figures: Mapping[str, float], *, without: Collection[str] = (), suites: Path = SUITES
) -> dict[str, Outcome]:
    """Hold figures against a table's suite; return what became of each, by figure.

    `without` names figures that cannot be there; their expectations are left out.
    Raises: GateError if the answer is not about exactly the expectations that were asked.
    """
    body = json.loads((suites / f"{table}.json").read_text(encoding="utf-8"))
    asked = [item for item in body["expectations"] if item["kwargs"]["column"] not in without]
    expected = sorted(item["kwargs"]["column"] for item in asked)
    result = _validate(table, asked, pd.DataFrame({name: [float(value)] for name, value in figures.items()}))
    outcomes: dict[str, Outcome] = {}
    for outcome in result.results:
        figure = str(outcome.expectation_config.kwargs["column"])
        found = _read(outcome)
        # Several expectations may be about one figure: the worst of them counts.
        outcomes[figure] = max(outcomes.get(figure, "holds"), found, key=_BADNESS.index)
    answered = sorted(str(outcome.expectation_config.kwargs["column"]) for outcome in result.results)
    holds_unsaid = set(outcomes.values()) == {"holds"} and result.success is not True
    if answered != expected or not expected or holds_unsaid:
        raise GateError(
            f"{table}: the answer of Great Expectations is about {len(answered)} expectations and says "
            f"success={result.success}, but {len(expected)} were asked; nothing was published. This is a defect "
            "of ryml or of Great Expectations: report it"
        )
    return outcomes


_BADNESS: Final[tuple[Outcome, ...]] = ("holds", "fails", "error")


def _read(outcome: Any) -> Outcome:
    if raised_exception(outcome.exception_info):
        return "error"
    return "holds" if outcome.success is True else "fails"


def raised_exception(info: Mapping[str, Any] | None) -> bool:
    """Tell whether an expectation raised: one flat dict says so, or a dict of such dicts, one a metric."""
    if not info:
        return False
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(raised_exception(metric) for metric in info.values())


def _validate(table: str, expectations: list[dict[str, Any]], frame: pd.DataFrame) -> Any:
    suite = _great_expectations().ExpectationSuite(name=table, expectations=expectations)
    batch = _batch_definition().get_batch({"dataframe": frame})
    # BOOLEAN_ONLY: every other format may quote what it looked at.
    return batch.validate(suite, result_format="BOOLEAN_ONLY")


def load() -> None:
    """Import Great Expectations ahead of the first judgement: for a job that has to wait for something else anyway."""
    _batch_definition()


@functools.cache
def _batch_definition() -> Any:
    # One context a process: its sources are looked up in whichever context was made last.
    gx = _great_expectations()
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    # Without the pages that a context else prepares in a temporary folder.
    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    config = DataContextConfig(store_backend_defaults=stores)
    context = gx.get_context(mode="ephemeral", project_config=config)
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("partition")
    return asset.add_batch_definition_whole_dataframe("figures")


@functools.cache
def _great_expectations() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # The import alone logs two hundred lines, and what is logged of an exception may quote what was looked at.
    log = logging.getLogger("great_expectations")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    with warnings.catch_warnings(), _without_collection():
        warnings.simplefilter("ignore")  # it imports modules that Python itself deprecates
        for name in _UNUSED:
            _import_when_used(name)
        import great_expectations as gx

    return gx


def _import_when_used(name: str) -> None:
    """Put off the import of a module to the first time that something of it is used."""
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    parent, _, stem = name.rpartition(".")
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], stem, module)
    spec.loader.exec_module(module)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Leave garbage where it is for a while: an import makes nearly none, and looking for it takes a fifth of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
