"""What all DAGs share: owner, retries, macros and the params that every run can be triggered with."""

import datetime as dt
from typing import Any

from airflow.sdk import Asset, Param

from ryml_airflow.deployment import campaign_file, setting
from ryml_airflow.retry_policy import RymlRetryPolicy
from ryml_airflow.run_date import run_date

OWNER = "ryml"
DEFAULT_ARGS: dict[str, Any] = {
    "owner": OWNER,
    # Every task can be run again at any time: it publishes whole or not at all, and what is done is not done twice.
    "retries": 2,
    "retry_policy": RymlRetryPolicy(),
    "retry_delay": dt.timedelta(minutes=2),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": dt.timedelta(minutes=20),
    "execution_timeout": dt.timedelta(hours=3),
}
MACROS = {"run_date": run_date, "setting": setting, "campaign_file": campaign_file}

DATE_PARAM = Param(
    None,
    type=["null", "string"],
    format="date",
    title="Date",
    description="UTC day of the events, YYYY-MM-DD. Leave empty in scheduled runs: they take the day before.",
)

# Who lets a night pass although a check that is a matter of judgement fails, and why; off unless somebody asks.
GATE_PARAMS = {
    "override_gates_reason": Param(
        None,
        type=["null", "string"],
        maxLength=500,
        title="Let failing checks pass: reason",
        description="Why the data is right although its checks say otherwise. Kept in the lake. Leave empty otherwise.",
    ),
    "override_gates_by": Param(
        None,
        type=["null", "string"],
        maxLength=80,
        title="Let failing checks pass: who decides",
        description="A name or a team, no e-mail address. Kept in the lake with the reason.",
    ),
}


def ramp_param(ramp_minutes: int) -> Param:
    """Ask for the ramp of a push; the campaign's own is the default."""
    return Param(
        ramp_minutes,
        type="integer",
        minimum=0,
        maximum=1440,
        title="Ramp",
        description="Minutes over which the rate of pushed contacts rises to its full height; 0: none.",
    )


def table_asset(name: str) -> Asset:
    """Declare a table of the lake for the lineage; its URI names the table, not where this deployment keeps it."""
    return Asset(name=name, uri=f"ryml://lake/{name}", group="ryml")
