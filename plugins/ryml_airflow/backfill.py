"""Operators and trigger form of a backfill: its steps share one staged lake, named by the run."""

import datetime as dt
import importlib
from collections.abc import Sequence
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import BaseOperator, Context, Param

from ryml_airflow.campaigns import names
from ryml_airflow.deployment import REPOSITORY, add_source_uri, campaign_file, setting
from ryml_airflow.launch import SPARK_CONF, publish_counts

_CAMPAIGN_NAMES = names()


def _date_param(title: str, description: str) -> Param:
    # No default: nobody backfills by accident.
    return Param(type="string", format="date", title=title, description=description)


BACKFILL_PARAMS = {
    "first_date": _date_param("First date", "First UTC day to build again, YYYY-MM-DD."),
    "last_date": _date_param("Last date", "Last UTC day to build again, included; at most 31 days in all."),
    "reason": Param(
        type="string",
        minLength=10,
        maxLength=500,
        title="Reason",
        description="What was wrong with the old catalog. Kept in the lake with what the backfill changed.",
    ),
    "campaign": Param(
        _CAMPAIGN_NAMES[0],
        type="string",
        enum=_CAMPAIGN_NAMES,
        title="Campaign",
        description="Whose recommendations are built again. One campaign a run.",
    ),
    "max_lost_percent": Param(
        5,
        type="integer",
        minimum=0,
        maximum=100,
        title="Most users lost (%)",
        description="Stop if more of the users that have recommendations would have none.",
    ),
    "promote": Param(
        True, type="boolean", title="Promote", description="Off: only compare, and leave the lake as it is."
    ),
}


class BackfillOperator(BaseOperator):
    """Run one step of a backfill, `jobs.<job>.main`, in the task's process and return what it returns.

    `takes` names the run's params that the step gets beyond the campaign, `settings` options of [ryml].
    """

    template_fields: Sequence[str] = ("job_run_id",)
    ui_color = "#e8f4ea"

    def __init__(self, *, job: str, takes: Sequence[str] = (), settings: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.job_run_id = "{{ run_id }}"
        self.takes, self.settings = tuple(takes), tuple(settings)

    def execute(self, context: Context) -> Any:
        """Import the job late (a DAG file must load without it) and run it."""
        params = context["params"]
        options: dict[str, Any] = {name: params[name] for name in self.takes}
        for name in ("first_date", "last_date"):
            if name in options:
                options[name] = dt.date.fromisoformat(options[name])
        options.update({name: setting(name) for name in self.settings})
        add_source_uri(options)
        result = importlib.import_module(f"jobs.{self.job}").main(
            lake=setting("lake"), run_id=self.job_run_id, campaign=campaign_file(params["campaign"]), **options
        )
        publish_counts(self, context, result)
        return result


class BackfillSparkOperator(SparkSubmitOperator):
    """Run `jobs/rebuild_dates.py` under spark-submit with the Spark connection; return what it rebuilt."""

    ui_color = "#fdebd8"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            application=str(REPOSITORY / "jobs" / "rebuild_dates.py"),
            application_args=[
                *("--lake", "{{ setting('lake') }}"),
                *("--run-id", "{{ run_id }}"),
                *("--campaign", "{{ campaign_file(params.campaign) }}"),
            ],
            name="rebuild_dates",
            env_vars={"PYTHONPATH": str(REPOSITORY)},
            conf=SPARK_CONF,
            verbose=False,
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Submit, wait, and read what was published in the staged lake."""
        from jobs.backfill.request import Backfill
        from jobs.rebuild_dates import rebuilt
        from jobs.spark_classes import use_kept_classes

        use_kept_classes()
        super().execute(context)

        campaign = campaign_file(context["params"]["campaign"])
        result = rebuilt(Backfill.open(lake=setting("lake"), run_id=str(context["run_id"]), campaign=campaign))
        publish_counts(self, context, result)
        return result
