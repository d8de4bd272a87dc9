"""The gate between writing a partition and publishing it: what does not hold is never seen by a reader.

Every job that publishes a table with a contract goes through here. A check that fails stops the run with one message,
which names all of them; the attempt's files are deleted and what was published before stays. Checks that are a matter
of judgement (`overridable`) can be let pass by somebody who says who they are and why.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.lake.lake import Attempt
from jobs.lake.manifest import FileEntry, Json, Manifest, Window
from jobs.quality.figures import Figures, Observed, figures_of
from jobs.quality.gates import evaluate
from jobs.quality.history import FIGURES, past_figures, relative_figures
from jobs.quality.kept_checks import (
    STOPS,
    CheckResult,
    KeptChecks,
    Verdict,
    forget_stopped,
    keep_passed,
    keep_stopped,
)
from jobs.quality.override import GateOverride
from schemas.checks import Check
from schemas.contracts import CONTRACTS, Contract
from schemas.errors import GateError

OVERRIDDEN = "overridden"  # the key in a manifest's metrics that says how many checks were
_SHOWN_DIGITS = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Passed:
    """An attempt that its gate let through. `metrics` belong into the manifest: later nights are held against them."""

    attempt: Attempt
    metrics: Json

    def settle(self) -> None:
        """Once published: forget what was stopped before."""
        forget_stopped(self.attempt.lake, self.attempt.partition)


def publish_checked(
    attempt: Attempt,
    files: Iterable[FileEntry],
    observed: Observed,
    *,
    inputs: Iterable[Manifest],
    parameters: Json,
    window: Window | None = None,
    metrics: Json | None = None,
    figures: Mapping[str, float] | None = None,
    missing: Mapping[str, str] | None = None,
    override: GateOverride | None = None,
) -> Manifest:
    """Publish an attempt if the table's contract holds for it.

    `figures` are those that the rows alone do not give, `missing` the reasons for those that cannot be there.
    Raises: GateError with every check that does not hold; nothing is published then.
    """
    passed = check(attempt, observed, figures=figures, missing=missing, override=override)
    manifest = attempt.publish(
        files, inputs=inputs, parameters=parameters, window=window, metrics={**(metrics or {}), **passed.metrics}
    )
    passed.settle()
    return manifest


def check(
    attempt: Attempt,
    observed: Observed,
    *,
    figures: Mapping[str, float] | None = None,
    missing: Mapping[str, str] | None = None,
    override: GateOverride | None = None,
) -> Passed:
    """Judge an attempt and keep what was found, whether it passes or not.

    Raises: GateError with every check that does not hold; the attempt's files are deleted then.
    """
    contract = CONTRACTS[attempt.partition.table]
    own = figures_of(contract, observed) | dict(figures or {})
    ratios, no_past = relative_figures(attempt.lake, contract, attempt.partition, own)
    results = _judge(contract, own | ratios, {**no_past, **(missing or {})}, override)
    overridden = sum(result.verdict == "overridden" for result in results)
    bad = [result for result in results if result.verdict in STOPS]
    message = _message(attempt, contract, results, bad) if bad else None
    kept = KeptChecks(
        partition=str(attempt.partition),
        run_id=attempt.run_id,
        verdict="stopped" if bad else "overridden" if overridden else "passed",
        override={"by": override.by, "reason": override.reason} if override and overridden and not bad else None,
        message=message,
        checks=tuple(results),
    )
    if message is not None:
        attempt.discard()
        keep_stopped(attempt, kept)
        raise GateError(message)
    log.info("%s: %d checks hold, %d overridden", attempt.partition, len(results) - overridden, overridden)
    keep_passed(attempt, kept)
    # What later nights are held against; ratios would differ each time that the same content is published again.
    metrics: dict[str, Any] = {FIGURES: {name: own[name] for name in past_figures(contract) if name in own}}
    if overridden:
        metrics[OVERRIDDEN] = overridden
    return Passed(attempt, metrics)


def _judge(
    contract: Contract, figures: Figures, missing: Mapping[str, str], override: GateOverride | None
) -> list[CheckResult]:
    # Not a number is no figure: it fails, where a comparison might pass over it.
    known = {name: value for name, value in figures.items() if math.isfinite(value)}
    absent = {
        check.figure: missing.get(check.figure, "no row has a value")
        for check in contract.checks
        if check.may_be_missing and check.figure not in figures
    }
    frame = {check.figure: known.get(check.figure, math.nan) for check in contract.checks if check.figure not in absent}
    outcomes = evaluate(contract.table.name, frame, without=absent)
    results = []
    for check in contract.checks:
        verdict: Verdict = "skipped"
        if check.figure not in absent:
            verdict = _verdict(check, outcomes.get(check.figure, "error"), override)
        results.append(
            CheckResult(
                figure=check.figure,
                observed=known.get(check.figure),
                expected=check.expected,
                verdict=verdict,
                why=check.why,
                skipped_because=absent.get(check.figure),
            )
        )
    return results


def _verdict(check: Check, outcome: str, override: GateOverride | None) -> Verdict:
    if outcome == "holds":
        return "passed"
    if outcome == "fails":
        return "overridden" if override and check.overridable else "failed"
    return "error"


def _message(attempt: Attempt, contract: Contract, results: list[CheckResult], bad: list[CheckResult]) -> str:
    overridable = {check.figure for check in contract.checks if check.overridable}
    judgements = [result.figure for result in bad if result.verdict == "failed" and result.figure in overridable]
    remedy = "Look at its source"
    if len(judgements) == len(bad):
        remedy += "; if the data is right after all, run again with override_gates_by and override_gates_reason"
    return (
        f"{attempt.partition}: {len(bad)} of {len(results)} checks do not hold: "
        f"{'; '.join(_describe(result) for result in bad)}. Nothing was published, and what was there before stays. "
        f"{remedy}. All checks: {attempt.partition.stopped_path}; the bounds: schemas/contracts.py"
    )


def _describe(result: CheckResult) -> str:
    if result.verdict == "error":
        return f"{result.figure} could not be evaluated ({result.why})"
    observed = "not there" if result.observed is None else shown(result.observed)
    return f"{result.figure} is {observed}, expected {result.expected} ({result.why})"


def shown(value: float) -> str:
    """Write a figure as people read it."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{_SHOWN_DIGITS}g}"
