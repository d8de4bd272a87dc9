"""Operators that run ryml's jobs: in the task's own process, or under spark-submit."""

import datetime as dt
import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Asset, BaseOperator, BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from pydantic import JsonValue

from ryml_airflow.campaigns import load_all
from ryml_airflow.deployment import REPOSITORY, add_source_uri, campaign_file, provider_address, setting
from ryml_airflow.run_date import RUN_DATE
from schemas.errors import ConfigError, GateError

LEDGER_VARIABLE = "RYML_LEDGER"

# A night's jobs are short: a JVM that compiles less and collects serially starts and ends sooner.
SPARK_CONF = {
    "spark.ui.enabled": "false",
    "spark.log.level": "WARN",
    "spark.sql.session.timeZone": "UTC",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
}

# What a job's option is filled with, by the option's name. Rendered with the task, so that the UI shows them.
_COMMON = {"date": RUN_DATE, "run_id": "{{ run_id }}"}


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def publish_counts(operator: BaseOperator, context: Context, result: Mapping[str, Any]) -> None:
    """Put the counts beside the asset, where the UI shows them."""
    for outlet in operator.outlets:
        if isinstance(outlet, Asset):
            counts: dict[str, JsonValue] = {
                name: value for name, value in result.items() if isinstance(value, int | str)
            }
            context["outlet_events"][outlet].extra = counts


def _gate_override(context: Context):  # type: ignore[no-untyped-def]  # GateOverride; its module is imported late
    """Who lets failing checks pass, and why, from the run's params; None unless somebody asked."""
    from jobs.quality.override import GateOverride

    params = context["params"]
    return GateOverride.of(by=params.get("override_gates_by"), reason=params.get("override_gates_reason"))


class JobOperator(BaseOperator):
    """Run `jobs.<job>.main` in the task's process and return what it returns.

    `arguments` are the job's own options beyond lake, date and run id; `provider_conn_id` adds the e-mail provider. A
    job that reads the source is handed the URI of the connection that the source's settings name.
    `result_key` narrows the returned dict to one of its values (for mapping over it). `is_gated` jobs check what they
    publish, and get the run's override of these checks, if somebody asked for one.
    """

    template_fields: Sequence[str] = ("job_date", "job_run_id", "arguments")
    ui_color = "#e8f4ea"

    def __init__(
        self,
        *,
        job: str,
        arguments: Mapping[str, Any] | None = None,
        campaign: str | None = None,
        settings: Sequence[str] = (),
        provider_conn_id: str | None = None,
        result_key: str | None = None,
        is_gated: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.is_gated = is_gated
        self.job_date, self.job_run_id = _COMMON["date"], _COMMON["run_id"]
        self.arguments = dict(arguments or {})
        self.campaign = campaign
        self.settings = tuple(settings)
        self.provider_conn_id = provider_conn_id
        self.result_key = result_key

    def execute(self, context: Context) -> Any:
        """Import the job late (a DAG file must load without it) and run it."""
        options: dict[str, Any] = {**self.arguments, **{name: setting(name) for name in self.settings}}
        if self.campaign:
            options["campaign"] = campaign_file(self.campaign)
        if self.provider_conn_id:
            options["provider"] = provider_address(self.provider_conn_id)
        add_source_uri(options)
        if self.is_gated:
            options["override"] = _gate_override(context)
        result = importlib.import_module(f"jobs.{self.job}").main(
            lake=setting("lake"), date=dt.date.fromisoformat(self.job_date), run_id=self.job_run_id, **options
        )
        publish_counts(self, context, result)
        return result[self.result_key] if self.result_key else result


class BuildSensor(BaseSensorOperator):
    """Wait until the date's build is finished and checked.

    Skips the rest of the run if nobody gets anything and the campaign says that this may be.
    """

    template_fields = ("job_date",)

    def __init__(self, *, campaign: str, may_be_empty: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign = campaign
        self.may_be_empty = may_be_empty
        self.job_date = RUN_DATE

    def poke(self, context: Context) -> bool:
        """Look for the build's manifest."""
        from jobs.finish_build import finished_recommendations
        from jobs.lake.lake import Lake
        from schemas.errors import EmptyPartitionError, GateError

        try:
            lists = finished_recommendations(
                Lake.open(setting("lake")), dt.date.fromisoformat(self.job_date), self.campaign
            )
        except (EmptyPartitionError, GateError) as error:
            self.log.info("%s", error)
            return False
        if self.may_be_empty and not lists.metrics.get("recommended"):
            raise AirflowSkipException(f"nobody gets anything from {self.campaign} on {self.job_date}")
        return True


class ReadCampaignOperator(BaseOperator):
    """Stands where a campaign's tasks would: reads the files again and fails with what is wrong."""

    def __init__(self, *, campaign: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign = campaign

    def execute(self, context: Context) -> None:
        """Raise what is wrong; nothing is by now if the file was put right after Airflow read the DAG."""
        if isinstance(found := load_all().get(self.campaign), ConfigError):
            raise found


class SparkJobOperator(SparkSubmitOperator):
    """Run `jobs/<job>.py` under spark-submit with the Spark connection, and return the counts of what it published.

    The job finds the repository's packages through PYTHONPATH: spark-submit puts only the file's own folder on the
    path. `published` names the table whose manifest holds the result.
    """

    ui_color = "#fdebd8"

    def __init__(
        self,
        *,
        job: str,
        published: str,
        arguments: Mapping[str, Any] | None = None,
        campaign: str | None = None,
        needs_ledger: bool = False,
        is_gated: bool = False,
        **kwargs: Any,
    ) -> None:
        self.job = job
        self.published = published
        self.is_gated = is_gated
        self.campaign = campaign
        options = {"lake": "{{ setting('lake') }}", **_COMMON}
        if campaign:
            options["campaign"] = f"{{{{ campaign_file('{campaign}') }}}}"
        # A database URL may hold a password, and arguments are rendered and visible: the job gets the variable's name.
        self.needs_ledger = needs_ledger
        if needs_ledger:
            options["ledger"] = f"env:{LEDGER_VARIABLE}"
        options.update(arguments or {})
        super().__init__(
            application=str(REPOSITORY / "jobs" / f"{job}.py"),
            application_args=[part for name, value in options.items() for part in (_flag(name), value)],
            name=job,
            # The driver and, in local mode, its Python workers inherit this; a cluster gets it by --py-files.
            env_vars={"PYTHONPATH": str(REPOSITORY)},
            conf=SPARK_CONF,
            verbose=False,
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Submit, wait, and read the manifest that the job published.

        Raises: GateError, which no retry cures, if the job's gate stopped it; AirflowException for anything else.
        """
        from jobs.lake.lake import Lake
        from jobs.quality.kept_checks import read_stopped
        from jobs.spark_classes import use_kept_classes
        from schemas.layout import safe_name

        options = self.options()
        partition = self._partition(options)
        if self.needs_ledger:
            os.environ[LEDGER_VARIABLE] = setting("ledger")
        override = _gate_override(context) if self.is_gated else None
        if override:
            # The environment of this task's own process, which spark-submit inherits.
            os.environ.update(override.as_environment())
        use_kept_classes()
        try:
            super().execute(context)
        except AirflowException as error:
            stopped = read_stopped(Lake.open(options["--lake"]), partition) if self.is_gated else None
            if stopped is not None and stopped.run_id == safe_name(options["--run-id"]):
                raise GateError(stopped.message) from error
            raise
        result = self.result(options)
        publish_counts(self, context, result)
        return result

    def options(self) -> dict[str, str]:
        """Give the job's options as they were rendered."""
        rendered = self.application_args or []
        return dict(zip(rendered[::2], rendered[1::2], strict=True))

    def result(self, options: dict[str, str]) -> dict[str, Any]:
        """Read what the job published."""
        from jobs.lake.lake import Lake
        from jobs.lake.summary import summarise

        return summarise(Lake.open(options["--lake"]).manifest(self._partition(options)))

    def _partition(self, options: dict[str, str]):  # type: ignore[no-untyped-def]  # Partition; imported late
        from schemas.layout import Partition
        from schemas.tables import TABLES

        campaign = self.campaign if TABLES[self.published].per_campaign else None
        return Partition(self.published, dt.date.fromisoformat(options["--date"]), campaign)
