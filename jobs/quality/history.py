"""What a partition is held against: the last good one, and the same weekday of the last four weeks.

The past is read from the figures in the manifests of partitions that were published, so from what passed its gate.
"""

import datetime as dt
import statistics
from collections.abc import Mapping
from typing import Any, Final

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.quality.figures import Figures
from schemas.checks import LAST_GOOD, WEEKDAY_MEDIAN
from schemas.contracts import Contract
from schemas.layout import Partition

LAST_GOOD_DAYS: Final = 31  # how far back the last good partition may lie
_WEEKS: Final = 4

FIGURES: Final = "figures"  # the key in a manifest's metrics


def past_figures(contract: Contract) -> list[str]:
    """Name the figures that a contract holds against their own past, and that manifests therefore keep."""
    held = (check.base for check in contract.checks if check.figure.endswith((LAST_GOOD, WEEKDAY_MEDIAN)))
    return sorted(set(held))


def last_good(lake: Lake, contract: Contract, partition: Partition) -> Manifest | None:
    """Return the newest partition published before this one; snapshots count one of the same date."""
    up_to = partition.date if contract.compares_own_date else partition.date - dt.timedelta(days=1)
    return lake.latest(partition.table, up_to=up_to, campaign=partition.campaign, days=LAST_GOOD_DAYS)


def relative_figures(
    lake: Lake, contract: Contract, partition: Partition, figures: Mapping[str, float]
) -> tuple[Figures, dict[str, str]]:
    """Hold figures against the past; return the ratios, and why those that are not there are missing."""
    ratios: Figures = {}
    missing: dict[str, str] = {}
    before = last_good(lake, contract, partition)
    same_weekday = _same_weekday(lake, partition)
    for check in contract.checks:
        past: list[float] = []
        if check.figure.endswith(LAST_GOOD):
            past = _known([before] if before else [], check.base)
            why = f"no {partition.table} with this figure in the {LAST_GOOD_DAYS} days before"
        elif check.figure.endswith(WEEKDAY_MEDIAN):
            past = _known(same_weekday, check.base)
            why = f"no {partition.table} of a {partition.date:%A} with this figure in the {_WEEKS} weeks before"
        else:
            continue
        reference = statistics.median(past) if past else 0.0
        if reference > 0 and check.base in figures:
            ratios[check.figure] = figures[check.base] / reference
        else:
            missing[check.figure] = f"{why}; held against {reference:g}" if past else why
    return ratios, missing


def _same_weekday(lake: Lake, partition: Partition) -> list[Manifest]:
    dates = [partition.date - dt.timedelta(weeks=week) for week in range(1, _WEEKS + 1)]
    found = [lake.find(Partition(partition.table, date, partition.campaign)) for date in dates]
    return [manifest for manifest in found if manifest is not None]


def _known(manifests: list[Manifest], figure: str) -> list[float]:
    figures: list[Mapping[str, Any]] = [manifest.metrics.get(FIGURES, {}) for manifest in manifests]
    return [float(held[figure]) for held in figures if figure in held]
