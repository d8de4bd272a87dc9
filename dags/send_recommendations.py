"""Send the day's recommendations: one mail to each user who has some.

Waits for the date's finished build, freezes the plan (who is pushed, who is cleared, who is withheld), pushes the
contacts in chunks on a rising ramp, balances the books and schedules **one** send.

**Run it again as often as needed**: confirmed chunks are not pushed again, and a campaign has one send per date for
ever, whatever is retried or cleared.

**When it fails**: the red task's message says what to do. Until `schedule_send` is green nobody has been mailed by
this run. A chunk that fails is retried alone; the others stay confirmed.

**Not for** past dates with a live provider: a live send needs a scheduled run of its own day. With the rehearsal
provider any date can be triggered.
"""

import datetime as dt

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import CronDataIntervalTimetable, Param, chain, dag, task_group

from ryml_airflow.campaigns import load
from ryml_airflow.dag_defaults import DATE_PARAM, DEFAULT_ARGS, MACROS, table_asset
from ryml_airflow.launch import BuildSensor, JobOperator, PushChunkOperator, SendOperator, SparkJobOperator

CAMPAIGN = load("resources_you_may_like")
DELIVERY = {"campaign": CAMPAIGN.name, "settings": ["ledger"], "provider_conn_id": "sendgrid_default"}


@dag(
    schedule=CronDataIntervalTimetable(f"0 {CAMPAIGN.mail.hour} * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    user_defined_macros=MACROS,
    params={
        "date": DATE_PARAM,
        "ramp_minutes": Param(
            CAMPAIGN.push.ramp_minutes,
            type="integer",
            minimum=0,
            maximum=1440,
            title="Ramp",
            description="Minutes over which the rate of pushed contacts rises to its full height; 0: none.",
        ),
    },
    tags=["ryml", "send", "nightly"],
    doc_md=__doc__,
)
def send_recommendations():
    wait_for_build = BuildSensor(
        task_id="wait_for_build",
        campaign=CAMPAIGN.name,
        mode="reschedule",
        poke_interval=60,
        timeout=dt.timedelta(minutes=CAMPAIGN.mail.max_lateness_minutes).total_seconds(),
    )
    pull_suppressions = JobOperator(task_id="pull_suppressions", job="pull_suppressions", **DELIVERY)
    plan_push = SparkJobOperator(
        task_id="plan_push",
        job="plan_push",
        published="chunks",
        campaign=CAMPAIGN.name,
        needs_ledger=True,
        arguments={"ramp_minutes": "{{ params.ramp_minutes }}"},
        pool="spark",
        outlets=[table_asset("chunks")],
    )
    list_chunks = JobOperator(
        task_id="list_chunks", job="list_chunks", campaign=CAMPAIGN.name, settings=["ledger"], result_key="chunks"
    )

    @task_group(tooltip="Each chunk waits for its place on the ramp without holding a slot, then is pushed")
    def push(chunk):
        wait = DateTimeSensorAsync(
            task_id="wait",
            target_time="{{ ti.xcom_pull(task_ids='list_chunks')[ti.map_index]['not_before'] }}",
            end_from_trigger=True,
        )
        wait >> PushChunkOperator(
            task_id="push_chunk",
            chunk=chunk,
            pool="sendgrid",
            map_index_template="chunk {{ task.chunk['chunk'] }}: {{ task.chunk['users'] }} users",
            **DELIVERY,
        )

    pushed = push.expand(chunk=list_chunks.output)
    reconcile_push = JobOperator(
        task_id="reconcile_push", job="reconcile_push", outlets=[table_asset("mirror")], **DELIVERY
    )
    schedule_send = SendOperator(
        task_id="schedule_send",
        job="schedule_send",
        max_lateness_minutes=CAMPAIGN.mail.max_lateness_minutes,
        pool="sendgrid",
        **DELIVERY,
    )
    chain(wait_for_build, pull_suppressions, plan_push, list_chunks, pushed, reconcile_push, schedule_send)


send_recommendations()
