"""The page of nights: every campaign and date in the ledger, what was planned, pushed and sent. Counts only."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader

from ryml_airflow.deployment import setting

app = FastAPI(title="ryml", docs_url=None, redoc_url=None, openapi_url=None)
_pages = Environment(loader=PackageLoader("ryml_airflow.pages", "."), autoescape=True)


@app.get("/", response_class=HTMLResponse, dependencies=[Depends(get_user)])
def nights() -> str:
    """List the nights, newest first."""
    from jobs.delivery.ledger import Ledger

    rows = Ledger(setting("ledger"), lambda: dt.datetime.now(dt.UTC)).nights()
    return _pages.get_template("nights.html").render(nights=rows)


@app.get("/{campaign}/{date}", response_class=HTMLResponse, dependencies=[Depends(get_user)])
def night(campaign: str, date: dt.date) -> str:
    """Show the partitions that a night published, with their inputs and counts."""
    return _pages.get_template("night.html").render(campaign=campaign, date=date, parts=_parts(campaign, date))


def _parts(campaign: str, date: dt.date) -> list[dict[str, Any]]:
    from jobs.lake.lake import Lake
    from schemas.layout import Partition
    from schemas.tables import TABLES

    lake, parts = Lake.open(setting("lake")), []
    for table in TABLES.values():
        if not table.dated:
            continue
        manifest = lake.find(Partition(table.name, date, campaign if table.per_campaign else None))
        if manifest is not None:
            parts.append({"table": table, "manifest": manifest, "counts": dict(_counts(manifest.metrics))})
    return parts


def _counts(metrics: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    """Give the counts of a manifest, those by reason or kind one by one."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}: {key}", count) for key, count in value.items() if isinstance(count, int))
        elif isinstance(value, int | float):
            yield name, value
