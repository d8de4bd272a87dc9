"""Runs as Airflow itself makes them, and their tasks as its task runner runs them: rows in its database, no scheduler.

Each way of starting a run is the function that the scheduler, the API or the command behind it calls.
"""

import datetime as dt

from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType


def put_into_database():
    """Store the DAGs of the folder, as the DAG processor does; return them by id."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    (bundle,) = DagBundlesManager().get_all_dag_bundles()
    bundle.initialize()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    assert bag.import_errors == {}
    sync_bag_to_db(bag, bundle.name, bundle.version)
    return bag.dags


def forget_runs(dag_id):
    """Delete the runs and backfills of a DAG."""
    from airflow.models.backfill import Backfill, BackfillDagRun
    from airflow.models.dagrun import DagRun
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(BackfillDagRun))
        session.execute(delete(DagRun).where(DagRun.dag_id == dag_id))
        session.execute(delete(Backfill).where(Backfill.dag_id == dag_id))


def start_scheduled(dag_id, due_at):
    """Unpause the DAG and let the scheduler make the runs that are due."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dag import DagModel

    with create_session() as session:
        model = session.get(DagModel, dag_id)
        model.is_paused = False
    with create_session() as session:
        due = [one for one in DagModel.dags_needing_dagruns(session)[0] if one.dag_id == dag_id]
        assert due, f"{dag_id} is due at {model.next_dagrun_create_after}"
        SchedulerJobRunner(job=Job())._create_dag_runs(due, session)
    (run_id,) = runs_of(dag_id)
    assert run_of(dag_id, run_id).data_interval_end == due_at
    return run_id


def start_triggered(dag_id, due_at, run_type, conf=None):
    """Trigger a run, as the button, the command or another DAG's operator do, with the due run's interval."""
    from airflow.api.common.trigger_dag import trigger_dag

    by = {"manual": "UI", "operator_triggered": "OPERATOR"}[run_type]
    logical_date = None if conf else due_at - dt.timedelta(days=1)
    with create_session() as session:
        run = trigger_dag(
            dag_id, triggered_by=DagRunTriggeredByType[by], run_type=DagRunType(run_type), conf=conf,
            logical_date=logical_date, run_id=f"{run_type}__{len(runs_of(dag_id))}", session=session,
        )  # fmt: skip
        return run.run_id


def start_by_asset(dag_id, due_at, run_type):
    """A run that an asset's event, or the asset's materialization, starts, with the due run's interval."""
    from airflow.models.serialized_dag import SerializedDagModel

    with create_session() as session:
        dag = session.scalar(SerializedDagModel.latest_item_select_object(dag_id)).dag
        start = due_at - dt.timedelta(days=1)
        run = dag.create_dagrun(
            run_id=f"{run_type}__1", logical_date=start, data_interval=(start, due_at), run_after=due_at,
            run_type=DagRunType(run_type), triggered_by=DagRunTriggeredByType.ASSET, state=DagRunState.QUEUED,
            session=session,
        )  # fmt: skip
        return run.run_id


def start_backfill(dag_id, due_at):
    """`airflow backfill create` over the one date; runs that are there are processed anew."""
    from airflow.models.backfill import ReprocessBehavior, _create_backfill

    start = due_at - dt.timedelta(days=1)
    before = set(runs_of(dag_id))
    backfill = _create_backfill(
        dag_id=dag_id, from_date=start, to_date=start, max_active_runs=1, reverse=False, dag_run_conf=None,
        triggering_user_name="tests", reprocess_behavior=ReprocessBehavior.COMPLETED,
    )  # fmt: skip
    end_backfill(backfill.id)
    made = set(runs_of(dag_id)) - before
    (run_id,) = made or {run for run in before if run_of(dag_id, run).backfill_id == backfill.id}
    return run_id


def end_backfill(backfill_id):
    """One backfill of a DAG at a time: call it over."""
    from airflow.models.backfill import Backfill

    with create_session() as session:
        session.get(Backfill, backfill_id).completed_at = dt.datetime.now(dt.UTC)


def clear(dag_id, run_id):
    """Clear all tasks of a run, as the button does."""
    from airflow.models.serialized_dag import SerializedDagModel

    with create_session() as session:
        dag = session.scalar(SerializedDagModel.latest_item_select_object(dag_id)).dag
        dag.clear(run_id=run_id, dag_run_state=DagRunState.QUEUED, session=session)


def runs_of(dag_id):
    """Ids of a DAG's runs."""
    from airflow.models.dagrun import DagRun

    with create_session() as session:
        return [run.run_id for run in DagRun.find(dag_id=dag_id, session=session)]


def run_of(dag_id, run_id):
    """One run's row."""
    from airflow.models.dagrun import DagRun

    with create_session() as session:
        (run,) = DagRun.find(dag_id=dag_id, run_id=run_id, session=session)
        session.expunge(run)
        return run


def answer(dag_id, run_id, task_id, option):
    """Answer what a task waits for, as the button in the UI does: the API's own route."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail

    with create_session() as session:
        update_hitl_detail(
            dag_id=dag_id, dag_run_id=run_id, task_id=task_id, session=session,
            update_hitl_detail_payload=UpdateHITLDetailPayload(chosen_options=[option]),
            user=SimpleAuthManagerUser(username="dana", role="admin"),
        )  # fmt: skip


def asked(dag_id, run_id, task_id):
    """What a task asks people: subject and body."""
    from airflow.models.dagrun import DagRun
    from airflow.models.hitl import HITLDetail

    with create_session() as session:
        (run,) = DagRun.find(dag_id=dag_id, run_id=run_id, session=session)
        detail = session.get(HITLDetail, run.get_task_instance(task_id, session=session).id)
        return detail.subject, detail.body


def let_time_pass(dag_id, run_id, task_id, minutes):
    """Move a waiting task's deadline so many minutes nearer, and let the scheduler look for what is over."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dagrun import DagRun

    with create_session() as session:
        (run,) = DagRun.find(dag_id=dag_id, run_id=run_id, session=session)
        run.get_task_instance(task_id, session=session).trigger_timeout -= dt.timedelta(minutes=minutes)
    SchedulerJobRunner(job=Job()).check_awaiting_input_timeouts()


def state_of(dag_id, run_id, task_id):
    """A task's state."""
    from airflow.models.dagrun import DagRun

    with create_session() as session:
        (run,) = DagRun.find(dag_id=dag_id, run_id=run_id, session=session)
        return str(run.get_task_instance(task_id, session=session).state)


def execute(dag, run_id, task_ids, *, is_resumed=False):
    """Run some of a run's tasks, one after the other whatever comes of them; return their states.

    As the scheduler would start them if somebody had marked everything before as a success. A resumed task goes on with
    the try that waited.
    """
    from airflow.models.dagrun import DagRun
    from airflow.sdk.definitions.dag import _run_task

    states = {}
    for task_id in task_ids:
        with create_session() as session:
            (run,) = DagRun.find(dag_id=dag.dag_id, run_id=run_id, session=session)
            run.state, run.start_date = DagRunState.RUNNING, dt.datetime.now(dt.UTC)
            ti = run.get_task_instance(task_id, session=session)
            ti.try_number += not is_resumed
            ti.state = TaskInstanceState.SCHEDULED
            session.commit()
            _run_task(ti=ti, task=dag.task_dict[task_id])
            session.expire_all()
            states[task_id] = str(run.get_task_instance(task_id, session=session).state)
    with create_session() as session:
        (run,) = DagRun.find(dag_id=dag.dag_id, run_id=run_id, session=session)
        run.state = DagRunState.SUCCESS if set(states.values()) == {"success"} else DagRunState.FAILED
    return states
