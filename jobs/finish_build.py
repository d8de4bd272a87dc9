"""Publish that a date's build is finished and checked: the exact partitions that a send may start from.

Reads:  the manifests of the date's profiles, correlations, catalog, users and recommendations
Writes: builds of the campaign and date
Run:    python -m jobs.finish_build --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.command_line import job_parser, run
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.summary import summarise
from jobs.quality.history import FIGURES
from schemas.campaign import load_campaign
from schemas.errors import EmptyPartitionError, GateError
from schemas.layout import Partition
from schemas.tables import BUILDS


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return job_parser(__doc__, campaign=True)


def main(*, lake: str, date: dt.date, run_id: str, campaign: Path) -> dict[str, Any]:
    """Publish the build; return how many partitions it consists of.

    Raises: GateError if one of them was published without its gate.
    """
    opened, name = Lake.open(lake), load_campaign(campaign).name
    parts = [opened.manifest(Partition(table, date)) for table in ("events", "catalog", "users", "profiles")]
    parts.append(opened.manifest(Partition("recommendations", date, name)))
    if unchecked := [str(part.partition) for part in parts if FIGURES not in part.metrics]:
        raise GateError(
            f"{', '.join(unchecked)} never went through a gate; a build is finished when all its partitions did. Build "
            f"{date} again from its export"
        )
    rows = pa.table(
        {
            "partition": [str(part.partition) for part in parts],
            "content_sha256": [part.content_sha256 for part in parts],
            "rows": [part.rows for part in parts],
        },
        schema=BUILDS.schema,
    )
    attempt = opened.attempt(Partition("builds", date, name), run_id)
    return summarise(attempt.publish([attempt.write(rows)], inputs=parts, parameters={}))


def finished_recommendations(lake: Lake, date: dt.date, campaign: str) -> Manifest:
    """Return the recommendations of a finished build.

    Raises: EmptyPartitionError if the build is not finished; GateError if they changed after they were checked.
    """
    build = lake.find(Partition("builds", date, campaign))
    if build is None:
        raise EmptyPartitionError(
            f"the build of {campaign} {date} is not finished; run build_recommendations for {date} first"
        )
    recommendations = lake.manifest(Partition("recommendations", date, campaign))
    if build.inputs.get(str(recommendations.partition)) != recommendations.content_sha256:
        raise GateError(
            f"{recommendations.partition} is not what the finished build of {date} checked; a build is under way "
            "or was stopped: let build_recommendations finish for that date"
        )
    return recommendations


if __name__ == "__main__":
    run(main, arg_parser())
