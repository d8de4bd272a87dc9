"""measure_CAMPAIGN, expire_data and backfill_catalog: their dates, their switches and what they never touch."""

import datetime as dt

import pytest
from test_dags import as_text, rendered_tasks

from schemas.errors import EmptyPartitionError

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Airflow's own, at import
]
DATES = [dt.date(2026, 11, 2), dt.date(2028, 3, 1), dt.date(2026, 12, 31), dt.date(2026, 3, 28)]


@pytest.mark.parametrize("date", DATES)
def test_the_send_of_the_morning_and_that_of_a_week_ago_are_measured(dagbag, date):
    rendered = rendered_tasks(dagbag.dags["measure_resources_you_may_like"], date)
    assert {task_id: fields["job_date"] for task_id, fields in rendered.items()} == {
        "measure_campaign": date.isoformat(),
        "measure_follow_up": (date - dt.timedelta(days=7)).isoformat(),
    }
    assert "{{" not in as_text(rendered)


def test_a_week_ago_without_a_send_is_skipped_and_nothing_else_is(dagbag, monkeypatch):
    from airflow.sdk.exceptions import AirflowSkipException

    from ryml_airflow.launch import JobOperator

    follow_up = dagbag.dags["measure_resources_you_may_like"].get_task("measure_follow_up")
    for raised, expected in ((EmptyPartitionError("never sent"), AirflowSkipException), (ValueError("x"), ValueError)):

        def fail(self, context, raised=raised):
            raise raised

        monkeypatch.setattr(JobOperator, "execute", fail)
        with pytest.raises(expected):
            type(follow_up).execute(follow_up, {})


@pytest.mark.parametrize("date", DATES)
def test_expiry_lists_then_deletes_as_of_the_same_date(dagbag, date):
    dag = dagbag.dags["expire_data"]
    rendered = {task: fields for task, fields in rendered_tasks(dag, date).items() if "job_date" in fields}
    assert {task: (fields["job_date"], fields["arguments"]) for task, fields in rendered.items()} == {
        "list_expired": (date.isoformat(), {"step": "list"}),
        "delete_expired": (date.isoformat(), {"step": "delete"}),
    }
    assert dag.get_task("list_expired").downstream_task_ids == {"may_delete"}
    assert dag.get_task("may_delete").downstream_task_ids == {"delete_expired"}
    assert dag.params["delete"] is True


@pytest.mark.parametrize(("dag_id", "task_id", "name"), [
    ("expire_data", "may_delete", "delete"), ("backfill_catalog", "may_promote", "promote"),
])  # fmt: skip
def test_the_switches_do_what_they_say(dagbag, dag_id, task_id, name):
    decide = dagbag.dags[dag_id].get_task(task_id).python_callable
    assert decide(params={name: True}) is True
    assert decide(params={name: False}) is False


def test_a_backfill_is_by_hand_for_dates_and_a_reason_and_knows_no_provider(dagbag):
    from airflow.sdk.exceptions import ParamValidationError

    dag = dagbag.dags["backfill_catalog"]
    assert type(dag.timetable).__name__ == "NullTimetable"
    for name, right in (("first_date", "2026-11-02"), ("reason", "the categories were wrong"), ("promote", False)):
        assert dag.params.get_param(name).resolve(right) == right
    for name, wrong in (("first_date", "yesterday"), ("last_date", None), ("reason", "short"), ("campaign", "no")):
        with pytest.raises(ParamValidationError):
            dag.params.get_param(name).resolve(wrong)
    assert len(dag.tasks) == 5
    for task in dag.tasks:
        assert not getattr(task, "provider_conn_id", None)
        assert "ledger" not in getattr(task, "settings", ())
        assert "ledger" not in str(getattr(task, "application_args", ""))
    assert dag.get_task("rebuild_dates").pool == "training"
