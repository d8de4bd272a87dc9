"""The gates in Airflow: overrides reach the jobs, a stopped Spark job is not tried again, the UI shows the checks."""

import asyncio
import datetime as dt
import os
from types import SimpleNamespace

import httpx
import pytest

from jobs.lake.lake import Lake
from jobs.quality.kept_checks import CheckResult, KeptChecks, keep_passed, keep_stopped
from jobs.quality.override import BY_VARIABLE, REASON_VARIABLE
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.tables import CATALOG, PROFILES

DATE = dt.date(2026, 11, 2)
RUN = "manual__2026-11-03T03:00:00+00:00"
GATED = {
    "export.export_events",
    "export.export_catalog",
    "export.export_users",
    "fold_profiles",
    "resources_you_may_like.train_hybrid",
    "resources_you_may_like.rank_trending",
    "resources_you_may_like.train_correlations",
    "resources_you_may_like.recommend_items",
    "back_in_stock.recommend_items",
}

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Airflow's own, at import
    pytest.mark.filterwarnings("ignore:Using `httpx` with"),  # the same, in its API
]


def checks(verdict, message=None):
    result = CheckResult("rows_of_last_good", 0.5, "at least 0.8 and at most 2.0", "failed", "items <b>", None)
    return KeptChecks(
        "profiles/date=2026-11-02", "manual__2026-11-03T03-00-00-00-00", verdict, None, message, (result,)
    )


@pytest.fixture
def lake(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RYML__LAKE", str(tmp_path / "lake"))
    return Lake.open(str(tmp_path / "lake"), buckets=1)


def test_every_job_that_publishes_a_gated_table_gets_the_override(dagbag):
    tasks = {task.task_id: task for task in dagbag.dags["build_recommendations"].tasks}
    assert {task_id for task_id, task in tasks.items() if getattr(task, "is_gated", False)} == GATED
    assert len({task_id.rpartition(".")[2] for task_id in GATED}) == 8


def test_gates_are_not_overridden_unless_somebody_asks(dagbag):
    params = dagbag.dags["build_recommendations"].params
    assert params["override_gates_reason"] is None
    assert params["override_gates_by"] is None


def test_an_override_reaches_a_job_in_the_tasks_process(dagbag, monkeypatch):
    import jobs.export_table

    seen = {}
    monkeypatch.setattr(jobs.export_table, "main", lambda **options: seen.update(options) or {"rows": 1})
    task = dagbag.dags["build_recommendations"].get_task("export.export_users").prepare_for_execution()
    task.job_date, task.settings = "2026-11-02", ()
    context = {
        "params": {"override_gates_by": "Dana", "override_gates_reason": "the shop merged two user bases"},
        "outlet_events": {outlet: SimpleNamespace() for outlet in task.outlets},
    }
    monkeypatch.setattr("ryml_airflow.launch.setting", lambda name: name)
    task.execute(context)
    assert (seen["override"].by, seen["override"].reason) == ("Dana", "the shop merged two user bases")
    task.execute({**context, "params": {"override_gates_by": None, "override_gates_reason": None}})
    assert seen["override"] is None


def submitted(dagbag, lake, monkeypatch, submit, params=None):
    """Run a Spark task whose spark-submit is `submit`."""
    from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

    monkeypatch.setattr(SparkSubmitOperator, "execute", lambda self, context: submit())
    monkeypatch.setattr(os, "environ", dict(os.environ))
    task = dagbag.dags["build_recommendations"].get_task("fold_profiles").prepare_for_execution()
    task.application_args = ["--lake", lake.uri, "--date", str(DATE), "--run-id", RUN]
    outlets = {outlet: SimpleNamespace() for outlet in task.outlets}
    return task.execute({"params": params or {}, "outlet_events": outlets})


def test_a_spark_job_that_its_gate_stopped_fails_with_its_message_and_is_not_tried_again(dagbag, lake, monkeypatch):
    from airflow.sdk import RetryAction
    from airflow.sdk.exceptions import AirflowException

    from ryml_airflow.retry_policy import RymlRetryPolicy

    def stopped_by_its_gate():
        keep_stopped(lake.attempt(Partition("profiles", DATE), RUN), checks("stopped", "profiles: 1 of 20 checks"))
        raise AirflowException("Cannot execute: spark-submit. Error code is: 6.")

    def lost():
        raise AirflowException("Cannot execute: spark-submit. Error code is: 1.")

    with pytest.raises(AirflowException) as caught:
        submitted(dagbag, lake, monkeypatch, lost)
    assert RymlRetryPolicy().evaluate(caught.value, 1, 2).action is not RetryAction.FAIL
    with pytest.raises(GateError, match="profiles: 1 of 20 checks") as caught:
        submitted(dagbag, lake, monkeypatch, stopped_by_its_gate)
    assert RymlRetryPolicy().evaluate(caught.value, 1, 2).action is RetryAction.FAIL
    # What another run was stopped by is not this one's message.
    RUN_OF_TODAY = "scheduled__2026-11-04"
    monkeypatch.setattr(f"{__name__}.RUN", RUN_OF_TODAY)
    with pytest.raises(AirflowException):
        submitted(dagbag, lake, monkeypatch, lost)


def test_an_override_reaches_spark_submit_by_its_environment_and_no_argument(dagbag, lake, monkeypatch):
    seen = {}

    def submit():
        seen.update(os.environ)
        attempt = lake.attempt(Partition("profiles", DATE), RUN)
        attempt.publish([attempt.write(PROFILES.schema.empty_table())], inputs=[], parameters={})

    params = {"override_gates_by": "Dana", "override_gates_reason": "the shop merged two user bases"}
    submitted(dagbag, lake, monkeypatch, submit, params)
    assert (seen[BY_VARIABLE], seen[REASON_VARIABLE]) == ("Dana", "the shop merged two user bases")
    task = dagbag.dags["build_recommendations"].get_task("fold_profiles")
    assert "override" not in str(task.application_args)


def test_the_ui_shows_each_check_what_was_stopped_first(lake):
    from airflow.api_fastapi.core_api.security import get_user

    from ryml_airflow.pages.nights import app

    attempt = lake.attempt(Partition("catalog", DATE), "night")
    keep_passed(
        attempt, KeptChecks("catalog", "night", "overridden", {"by": "Dana", "reason": "a new range"}, None, ())
    )
    attempt.publish([attempt.write(CATALOG.schema.empty_table())], inputs=[], parameters={})
    keep_stopped(lake.attempt(Partition("profiles", DATE), RUN), checks("stopped", "message"))

    async def fetch(*paths):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow.example.com") as client:
            return [await client.get(path) for path in paths]

    assert asyncio.run(fetch("/spring/2026-11-02/checks"))[0].status_code in (401, 403)
    app.dependency_overrides[get_user] = lambda: None
    try:
        paths = ("/spring/2026-11-02/checks", "/spring/2026-11-02", "/night?campaign=spring&date=2026-11-02")
        page, night, opened = asyncio.run(fetch(*paths))
    finally:
        app.dependency_overrides.clear()
    page, night = page.text, night.text
    assert page.index("profiles: stopped") < page.index("catalog: overridden")
    for text in ("rows_of_last_good", "0.5", "at least 0.8 and at most 2.0", "failed", "Let pass by Dana: a new range"):
        assert text in page
    assert "items &lt;b&gt;" in page
    assert "stopped by its checks: profiles" in night
    assert opened.headers["location"] == "spring/2026-11-02"
