"""The pages of nights: every campaign and date in the ledger, what was planned, pushed and sent, and every check.

Counts and figures only, but for the explanation of one user's list, which is asked for by the user's id.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader

from ryml_airflow.campaigns import names
from ryml_airflow.deployment import setting
from ryml_airflow.pages.waterfall import waterfall_steps

app = FastAPI(title="ryml", docs_url=None, redoc_url=None, openapi_url=None)
_ORDER = ("error", "failed", "overridden", "passed", "skipped")
_pages = Environment(loader=PackageLoader("ryml_airflow.pages", "."), autoescape=True)


@app.get("/", response_class=HTMLResponse, dependencies=[Depends(get_user)])
def nights() -> str:
    """List the nights, newest first."""
    from jobs.delivery.ledger import Ledger

    rows = Ledger(setting("ledger"), lambda: dt.datetime.now(dt.UTC)).nights()
    return _pages.get_template("nights.html").render(nights=rows, campaigns=names())


@app.get("/night", dependencies=[Depends(get_user)])
def open_night(campaign: str, date: dt.date) -> RedirectResponse:
    """Open any night: one that was stopped before its plan is in no ledger."""
    return RedirectResponse(f"{quote(campaign, safe='')}/{date}")


@app.get("/{campaign}/{date}", response_class=HTMLResponse, dependencies=[Depends(get_user)])
def night(campaign: str, date: dt.date) -> str:
    """Show the partitions that a night published, with their inputs and counts."""
    stopped = [part["table"].name for part in _checks(campaign, date) if not part["is_published"]]
    return _pages.get_template("night.html").render(
        campaign=campaign, date=date, parts=_parts(campaign, date), stopped=stopped
    )


@app.get("/{campaign}/{date}/checks", response_class=HTMLResponse, dependencies=[Depends(get_user)])
def checks(campaign: str, date: dt.date) -> str:
    """Show every check of a night: what was observed, what was expected, and what came of it."""
    from jobs.quality.checked_publish import shown

    return _pages.get_template("checks.html").render(
        campaign=campaign, date=date, parts=_checks(campaign, date), shown=shown
    )


@app.get("/{campaign}/{date}/backtest", response_class=HTMLResponse, dependencies=[Depends(get_user)])
def backtest(campaign: str, date: dt.date) -> str:
    """Show the report of a night's backtest, as it lies in the lake."""
    from jobs.backtest.training_outcome import read_report
    from jobs.lake.lake import Lake

    report = read_report(Lake.open(setting("lake")), campaign, date)
    return report or f"There is no backtest of {date}: training was not due, or the night did not come so far."


@app.get("/{campaign}/{date}/lists", response_class=HTMLResponse, dependencies=[Depends(get_user)])
def lists(campaign: str, date: dt.date) -> str:
    """Show what the night's lists are like, and the waterfall from candidates to lists."""
    from jobs.lake.lake import Lake
    from schemas.layout import Partition

    made = Lake.open(setting("lake")).find(Partition("recommendations", date, campaign))
    metrics = dict(made.metrics) if made is not None else {}
    return _pages.get_template("lists.html").render(
        campaign=campaign, date=date, metrics=metrics, steps=waterfall_steps(metrics.get("waterfall", {}))
    )


@app.get("/{campaign}/{date}/explain", response_class=HTMLResponse, dependencies=[Depends(get_user)])
def explain(campaign: str, date: dt.date, user: str = "") -> str:
    """Explain one user's list, or say why it cannot be explained."""
    from jobs.explain_user import main
    from schemas.errors import RymlError

    found, problem = None, None
    if user:
        try:
            found = main(lake=setting("lake"), date=date, campaign=campaign, user=user)
        except RymlError as error:
            problem = str(error)
    return _pages.get_template("explain.html").render(
        campaign=campaign, date=date, user=user, found=found, problem=problem
    )


def _checks(campaign: str, date: dt.date) -> list[dict[str, Any]]:
    """What was stopped and nothing passed since, then what is published; within a table, what fails comes first."""
    from jobs.lake.lake import Lake
    from jobs.quality.kept_checks import KeptChecks, read_passed, read_stopped
    from schemas.contracts import CONTRACTS
    from schemas.layout import Partition

    lake = Lake.open(setting("lake"))
    parts: list[dict[str, Any]] = []

    def add(kept: KeptChecks | None, *, is_published: bool) -> None:
        if kept is not None:
            ordered = sorted(kept.checks, key=lambda check: _ORDER.index(check.verdict))
            parts.append({"table": contract.table, "kept": kept, "checks": ordered, "is_published": is_published})

    for contract in CONTRACTS.values():
        partition = Partition(contract.table.name, date, campaign if contract.table.per_campaign else None)
        add(read_stopped(lake, partition), is_published=False)
        manifest = lake.find(partition)
        if manifest is not None:
            add(read_passed(lake, manifest), is_published=True)
    return sorted(parts, key=lambda part: part["is_published"])


def _parts(campaign: str, date: dt.date) -> list[dict[str, Any]]:
    from jobs.lake.lake import Lake
    from jobs.quality.kept_checks import read_passed
    from schemas.contracts import CONTRACTS
    from schemas.layout import Partition
    from schemas.tables import TABLES

    lake, parts = Lake.open(setting("lake")), []
    for table in TABLES.values():
        if not table.dated:
            continue
        manifest = lake.find(Partition(table.name, date, campaign if table.per_campaign else None))
        if manifest is not None:
            counts = dict(_counts(manifest.metrics))
            kept = read_passed(lake, manifest) if table.name in CONTRACTS else None
            parts.append({"table": table, "manifest": manifest, "counts": counts, "kept": kept})
    return parts


def _counts(metrics: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    """Give the counts of a manifest, those by reason or kind one by one."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}: {key}", count) for key, count in value.items() if isinstance(count, int))
        elif isinstance(value, int | float):
            yield name, value
