"""A campaign is a file: what one more, a wrong one, and one in another zone do to the DAGs."""

import datetime as dt
import shutil
from itertools import pairwise
from types import SimpleNamespace

import pytest
from test_dags import CAMPAIGNS, DAG_IDS, ROOT

from schemas.errors import ConfigError

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Airflow's own, at import
]
THIRD = """
title = "Third"
[mail]
subject = "Third"
suppression_group = "Third"
field_prefix = "third"
hour = 16
zone = "America/Los_Angeles"
"""


@pytest.fixture
def dags_with(tmp_path, monkeypatch):
    """Load the repository's DAG files beside a folder of campaigns that has files more."""

    def load(**texts):
        from airflow.dag_processing.dagbag import DagBag

        folder = tmp_path / "campaigns"
        shutil.copytree(ROOT / "dags" / "campaigns", folder)
        for name, text in texts.items():
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")
        monkeypatch.setenv("AIRFLOW__RYML__CAMPAIGNS", str(folder))
        bag = DagBag(dag_folder=str(ROOT / "dags"))
        assert bag.import_errors == {}
        return bag.dags

    return load


def test_a_third_file_adds_its_runs_and_changes_no_others(dagbag, dags_with):
    dags = dags_with(third=THIRD)
    assert set(dags) == DAG_IDS | {"send_third", "measure_third"}
    tasks = set(dags["build_recommendations"].task_ids)
    assert tasks - set(dagbag.dags["build_recommendations"].task_ids) == {
        "third.backtest_models", "third.train_hybrid", "third.rank_trending", "third.train_correlations",
        "third.recommend_items", "third.finish_build",
    }  # fmt: skip
    for dag_id in DAG_IDS - {"build_recommendations"}:
        assert dags[dag_id].task_ids == dagbag.dags[dag_id].task_ids, dag_id
    for task in dags["send_third"].tasks:
        assert getattr(task, "campaign", "third") == "third", task.task_id
    # Both files that ship take a last look at recent events; by default nothing is read a second time.
    assert set(dags["send_back_in_stock"].task_ids) - set(dags["send_third"].task_ids) == {"pull_recent_events"}


def test_the_schedule_is_the_campaigns_hour_in_its_zone(dags_with):
    dags = dags_with(third=THIRD)
    send, measure = dags["send_third"], dags["measure_third"]
    assert (send.timetable.expression, str(send.timetable.timezone)) == ("0 16 * * *", "America/Los_Angeles")
    assert (measure.timetable.expression, str(measure.timetable.timezone)) == ("30 17 * * *", "America/Los_Angeles")


@pytest.mark.parametrize(("dag_id", "hours"), [("send_third", {23, 0}), ("measure_third", {0, 1})])
def test_each_day_of_two_years_has_its_date_where_summer_time_crosses_midnight(dags_with, dag_id, hours):
    """16:00 in Los Angeles is 23:00 or 0:00 UTC: the day before the interval's end would come twice, or never."""
    dag, params = dags_with(third=THIRD)[dag_id], {"date": None}
    run_date = dag.user_defined_macros["run_date"]
    ends = due_of(dag.timetable, days=730)
    dates = [
        dt.date.fromisoformat(
            run_date(SimpleNamespace(run_id="r", data_interval_start=start, data_interval_end=end), params)
        )
        for start, end in pairwise(ends)
    ]
    assert len(dates) == 729
    assert {(second - first).days for first, second in pairwise(dates)} == {1}
    assert {end.in_timezone("UTC").hour for end in ends} == hours


def due_of(timetable, *, days):
    import pendulum
    from airflow.timetables.interval import CronDataIntervalTimetable

    core = CronDataIntervalTimetable(timetable.expression, timezone=timetable.timezone)
    at, found = pendulum.datetime(2026, 1, 1), []
    while len(found) < days:
        at = core._get_next(at)
        found.append(at)
    return found


def test_a_file_that_cannot_be_read_fails_alone_and_says_why(dags_with):
    dags = dags_with(third=THIRD.replace("hour = 16", "hour = 61"))
    assert set(dags) == DAG_IDS | {"send_third"}
    assert dags["send_third"].task_ids == ["read_campaign"]
    assert "third.read_campaign" in dags["build_recommendations"].task_ids
    for dag_id in ("send_third", "build_recommendations"):
        prefix = "" if dag_id == "send_third" else "third."
        task = dags[dag_id].get_task(f"{prefix}read_campaign")
        with pytest.raises(ConfigError, match=r"mail\.hour: .*61"):
            type(task).execute(task, {})
    downstream = dags["build_recommendations"].get_task("third.read_campaign").downstream_task_ids
    assert not downstream, "other campaigns do not wait for it"


def test_two_campaigns_with_the_same_fields_are_stopped_and_the_others_go_on(dags_with):
    """Planted bug: the second push would replace what the first one's mail shows."""
    dags = dags_with(third=THIRD.replace('"third"', '"ryml"'))
    assert dags["send_third"].task_ids == ["read_campaign"]
    assert dags["send_resources_you_may_like"].task_ids == ["read_campaign"]
    assert "plan_push" in dags["send_back_in_stock"].task_ids
    task = dags["send_third"].get_task("read_campaign")
    with pytest.raises(ConfigError, match="resources_you_may_like and third share field_prefix 'ryml'"):
        type(task).execute(task, {})


def test_a_night_on_which_nobody_gets_anything_is_skipped_only_where_it_may_be(dagbag, monkeypatch):
    from airflow.sdk.exceptions import AirflowSkipException

    from ryml_airflow.launch import BuildSensor

    monkeypatch.setattr("jobs.lake.lake.Lake.open", lambda uri: None)
    monkeypatch.setattr(
        "jobs.finish_build.finished_recommendations", lambda *_: SimpleNamespace(metrics={"recommended": 0})
    )
    assert len(CAMPAIGNS) >= 2
    for campaign, may_be_empty in (("back_in_stock", True), ("resources_you_may_like", False)):
        sensor = dagbag.dags[f"send_{campaign}"].get_task("wait_for_build").prepare_for_execution()
        assert isinstance(sensor, BuildSensor)
        sensor.job_date = "2026-11-02"
        if may_be_empty:
            with pytest.raises(AirflowSkipException):
                sensor.poke({})
        else:
            assert sensor.poke({}) is True  # the plan is what stops it, and says why


def test_a_campaign_of_mail_send_has_the_same_stages_and_fences(dagbag, dags_with):
    """Another method, not another way past the fence: pushing and releasing ask each for themselves."""
    from ryml_airflow.provider_jobs import FencedJobOperator

    sender = '[mail_send]\nfrom_email = "shop@example.com"\npostal_address = "1 Example Street"\n'
    text = f'{THIRD}approval = true\n[push]\nmethod = "mail_send"\ndeadline_minutes = 45\n{sender}'
    dags = dags_with(third=text)
    tasks = {task.task_id: task for task in dags["send_third"].tasks}
    fenced = {name for name, task in tasks.items() if isinstance(task, FencedJobOperator)}
    assert fenced == {"pull_suppressions", "push.push_chunk", "schedule_send"}
    assert {tasks[name].max_lateness_minutes for name in fenced} == {240}
    assert tasks["schedule_send"].upstream_task_ids == {"approve_send"}
    assert tasks["approve_send"].upstream_task_ids == {"reconcile_push"}
