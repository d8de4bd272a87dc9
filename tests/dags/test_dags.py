"""The DAGs as Airflow sees them: loading, policy, and every task rendered with what its schedule really gives."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from schemas.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "rendered_tasks.json"
CAMPAIGNS = sorted(path.stem for path in (ROOT / "dags" / "campaigns").glob("*.toml"))
# A file that ends in _campaigns makes a DAG for each campaign; the others make the DAG of their own name.
FILES = {path.stem for path in (ROOT / "dags").glob("*.py")}
VERBS = {stem.removesuffix("_campaigns") for stem in FILES if stem.endswith("_campaigns")}
DAG_IDS = {stem for stem in FILES if not stem.endswith("_campaigns")} | {
    f"{verb}_{campaign}" for verb in VERBS for campaign in CAMPAIGNS
}
TRAINING = {"backtest_models", "train_hybrid", "train_correlations", "rebuild_dates"}
NIGHTLY = {"build_recommendations", *(f"send_{campaign}" for campaign in CAMPAIGNS)}

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Airflow's own, at import
]


def test_all_dags_load(dagbag):
    assert dagbag.import_errors == {}
    assert set(dagbag.dags) == DAG_IDS >= NIGHTLY
    assert len(CAMPAIGNS) >= 2


LOADER = """
import builtins, socket, sys
sys.path[:0] = [{root!r}, {root!r} + "/plugins"]
real = builtins.__import__
def guarded(name, *args, **kwargs):
    if name.split(".")[0] in ("pyspark", "great_expectations", "sendgrid", "lightfm"):
        raise ImportError(f"{{name}} was imported while a DAG file was loaded")
    return real(name, *args, **kwargs)
builtins.__import__ = guarded
def refuse(*args):
    raise OSError("a DAG file used the network")
socket.socket.connect = refuse
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder={root!r} + "/dags")
assert not bag.import_errors, bag.import_errors
assert max(stat.duration.total_seconds() for stat in bag.dagbag_stats) < 10
print("loaded", len(bag.dags))
"""


def test_dags_load_without_pyspark_network_or_secrets(tmp_path):
    environment = {
        "PATH": "/usr/bin:/bin",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/a.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOADER.format(root=str(ROOT))],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"loaded {len(DAG_IDS)}" in done.stdout


def test_policy(dagbag):
    assert len(dagbag.dags) >= 2
    for dag_id, dag in dagbag.dags.items():
        assert dag.max_active_runs == 1, dag_id
        assert dag.catchup is False, dag_id
        assert dag.start_date is None, f"{dag_id}: a past start_date fires a run when the DAG is unpaused"
        assert "ryml" in dag.tags
        assert "when it fails" in (dag.doc_md or "").lower(), f"{dag_id} does not say what to do when it fails"
        for task in dag.tasks:
            assert task.owner == "ryml", task.task_id
            assert task.retries >= 1, task.task_id
            assert task.execution_timeout is not None, task.task_id
        for task in dag.tasks:
            if task.task_id.rpartition(".")[2] in TRAINING:
                assert task.pool == "training", f"{task.task_id} would be in the way of the send's jobs"
            elif task.__class__.__name__ == "SparkJobOperator" or "Spark" in task.task_type:
                assert task.pool == "spark", f"{task.task_id} would crowd out the scheduler's other work"
    tasks = {task.task_id.rpartition(".")[2] for dag in dagbag.dags.values() for task in dag.tasks}
    assert tasks >= TRAINING


def interval_of(dag, run_after):
    """The data interval that the DAG's own timetable gives the run that is due at an instant."""
    from airflow.timetables.base import DataInterval  # noqa: F401 - the type that comes back
    from airflow.timetables.interval import CronDataIntervalTimetable

    timetable = dag.timetable
    core = CronDataIntervalTimetable(timetable.expression, timezone="UTC")
    import pendulum

    return core.infer_manual_data_interval(run_after=pendulum.instance(run_after))


def scheduled_context(dag, date):
    """What the schedule gives the run that works on a date: it is due on the morning after."""
    hour = int(dag.timetable.expression.split()[1])
    due = dt.datetime.combine(date + dt.timedelta(days=1), dt.time(hour, 59), dt.UTC)
    interval = interval_of(dag, due)
    assert interval.start < interval.end
    run_id = f"scheduled__{interval.start.isoformat()}"
    dag_run = SimpleNamespace(
        run_id=run_id,
        run_type="scheduled",
        data_interval_start=interval.start,
        data_interval_end=interval.end,
        logical_date=interval.start,
    )
    params = {name: param.value if hasattr(param, "value") else param for name, param in dag.params.items()}
    chunks = [{"chunk": 0, "users": 7, "not_before": "2026-11-03T08:00:00+00:00"}]
    ti = SimpleNamespace(map_index=0, xcom_pull=lambda task_ids: chunks)
    return {"dag_run": dag_run, "run_id": run_id, "params": params, "ti": ti, "dag": dag}


def rendered_tasks(dag, date):
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    context = scheduled_context(dag, date)
    rendered = {}
    for task in dag.tasks:
        if isinstance(task, MappedOperator) or task.is_mapped:
            continue
        copy = task.prepare_for_execution()
        chunk = {"chunk": 0, "users": 7, "not_before": "2026-11-03T08:00:00+00:00"}
        if hasattr(copy, "chunk"):
            copy.chunk = chunk
        copy.render_template_fields({**context, "task": copy})
        rendered[task.task_id] = {name: getattr(copy, name) for name in copy.template_fields if getattr(copy, name)}
    return rendered


def as_text(value):
    text = json.dumps(value, indent=1, sort_keys=True, default=str)
    return text.replace(str(ROOT), "<repository>").replace(f"{Path.home()}", "<home>")


@pytest.fixture
def fixed_settings(monkeypatch):
    for name in ("lake", "source", "data"):
        monkeypatch.setenv(f"AIRFLOW__RYML__{name.upper()}", f"/data/{name}")
    monkeypatch.setenv("AIRFLOW__RYML__LEDGER", "sqlite:////data/ledger.db")


@pytest.mark.parametrize("dag_id", sorted(NIGHTLY))
def test_every_task_renders_with_the_date_of_its_schedule(dagbag, fixed_settings, dag_id):
    for date in (dt.date(2026, 11, 2), dt.date(2028, 2, 29), dt.date(2026, 12, 31), dt.date(2026, 3, 28)):
        rendered = rendered_tasks(dagbag.dags[dag_id], date)
        assert len(rendered) >= 8
        for task_id, fields in rendered.items():
            text = as_text(fields)
            assert "{{" not in text, task_id
            if "job_date" in fields:
                assert fields["job_date"] == date.isoformat(), task_id
            if "application_args" in fields:
                arguments = fields["application_args"]
                assert arguments[arguments.index("--date") + 1] == date.isoformat()


def test_rendered_tasks_are_as_reviewed(dagbag, fixed_settings, request):
    """Golden file: what changes in a rendered command shows in the diff. `make golden` writes it anew."""
    rendered = {dag_id: rendered_tasks(dagbag.dags[dag_id], dt.date(2026, 11, 2)) for dag_id in sorted(NIGHTLY)}
    text = as_text(rendered) + "\n"
    if request.config.getoption("--golden"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert GOLDEN.exists(), "no golden file; write it with: make golden"
    assert text == GOLDEN.read_text(encoding="utf-8"), "rendered tasks changed; look at the diff after: make golden"


def test_intervals_neither_overlap_nor_leave_a_gap(dagbag):
    for dag_id in NIGHTLY:
        dag = dagbag.dags[dag_id]
        dates = [dt.date(2026, 1, 1) + dt.timedelta(days=n) for n in range(400)]
        ends = None
        for date in dates:
            interval = scheduled_context(dag, date)["dag_run"]
            assert interval.data_interval_start < interval.data_interval_end
            assert ends in (None, interval.data_interval_start)
            ends = interval.data_interval_end


def test_a_cron_string_would_have_an_interval_of_no_length():
    """Planted bug: the default timetable. The resolver refuses its runs instead of exporting nothing."""
    import pendulum
    from airflow.timetables.trigger import CronTriggerTimetable

    from ryml_airflow.run_date import run_date

    interval = CronTriggerTimetable("0 3 * * *", timezone="UTC").infer_manual_data_interval(
        run_after=pendulum.datetime(2026, 11, 3, 3)
    )
    assert interval.start == interval.end
    run = SimpleNamespace(run_id="r", data_interval_start=interval.start, data_interval_end=interval.end)
    with pytest.raises(ConfigError, match="param date=YYYY-MM-DD"):
        run_date(run, {})


def test_the_run_date_comes_from_the_param_or_the_schedule_and_from_nothing_else():
    from ryml_airflow.run_date import run_date

    without = SimpleNamespace(run_id="asset_triggered__1", data_interval_start=None, data_interval_end=None)
    assert run_date(without, {"date": "2026-11-02"}) == "2026-11-02"
    with pytest.raises(ConfigError, match="no run date"):
        run_date(without, {"date": None})
    with pytest.raises(ConfigError, match="expected YYYY-MM-DD"):
        run_date(without, {"date": "yesterday"})


LATE = dt.timedelta(minutes=241)


@pytest.mark.parametrize("run_type", ["scheduled", "manual", "backfill", "asset_triggered", "operator_triggered"])
@pytest.mark.parametrize("late", [dt.timedelta(0), dt.timedelta(minutes=240), LATE, dt.timedelta(days=1), -LATE])
def test_only_the_days_own_scheduled_run_in_time_passes_the_live_fence(run_type, late):
    from ryml_airflow.live_fence import refuse_wrong_run
    from schemas.errors import GateError

    due = dt.datetime(2026, 11, 3, 8, tzinfo=dt.UTC)
    case = {"run_type": run_type, "due_at": due, "now": due + late, "max_lateness_minutes": 240}
    refuse_wrong_run(is_rehearsal=True, **case)
    if run_type == "scheduled" and dt.timedelta(0) <= late < LATE:
        refuse_wrong_run(is_rehearsal=False, **case)
    else:
        with pytest.raises(GateError):
            refuse_wrong_run(is_rehearsal=False, **case)
