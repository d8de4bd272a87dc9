"""Send the day's recommendations of one campaign: one mail to each user who has some.

There is one such DAG per file in `dags/campaigns/`; its schedule is that campaign's hour and zone. It waits for the
date's finished build, freezes the plan (who is pushed, who is cleared, who is withheld or held out), pushes the
contacts in chunks on a rising ramp, balances the books and schedules **one** send. (With `push.method = "mail_send"`
the mails themselves are pushed; they wait at the provider until `schedule_send` releases them.) Where the campaign's
file says `approval = true`, a person says yes before that, under *Browse, Required Actions*, with the difference to the
plan before (also in the result of `compare_plan`).

**Run it again as often as needed**: confirmed chunks are not pushed again, and a campaign has one send per date for
ever, whatever is retried or cleared.

**When it fails**: the red task's message says what to do. Until `schedule_send` is green nobody has been mailed by
this run. A chunk that fails is retried alone; the others stay confirmed. A DAG that has only `read_campaign` stands for
a campaign file that cannot be read: the task says why, and the other campaigns go on.

**Not for** past dates with a live provider: a live send needs a scheduled run of its own day. With the rehearsal
provider any date can be triggered.
"""

import datetime as dt

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import CronDataIntervalTimetable, chain, dag, task_group

from ryml_airflow.approval import ApproveSendOperator
from ryml_airflow.campaigns import load_all
from ryml_airflow.dag_defaults import DATE_PARAM, DEFAULT_ARGS, GATE_PARAMS, MACROS, ramp_param, table_asset
from ryml_airflow.launch import BuildSensor, JobOperator, ReadCampaignOperator, SparkJobOperator
from ryml_airflow.provider_jobs import FencedJobOperator, PushChunkOperator, SendOperator
from ryml_airflow.run_date import run_date_of
from schemas.campaign import Campaign

DAG_DEFAULTS = {"catchup": False, "max_active_runs": 1, "default_args": DEFAULT_ARGS, "doc_md": __doc__}


def send_dag(campaign: Campaign):
    mail, delivery = campaign.mail, {"campaign": campaign.name, "settings": ["ledger"]}
    provider = {"provider_conn_id": "sendgrid_default", **delivery}
    fenced = {"max_lateness_minutes": mail.max_lateness_minutes, **provider}

    @dag(
        dag_id=f"send_{campaign.name}",
        dag_display_name=f"send: {campaign.title}",
        schedule=CronDataIntervalTimetable(f"0 {mail.hour} * * *", timezone=mail.zone),
        user_defined_macros={**MACROS, "run_date": run_date_of(mail.send_time)},
        params={"date": DATE_PARAM, "ramp_minutes": ramp_param(campaign.push.ramp_minutes), **GATE_PARAMS},
        tags=["ryml", "send", "nightly", campaign.name],
        **DAG_DEFAULTS,
    )
    def send():
        wait_for_build = BuildSensor(
            task_id="wait_for_build",
            campaign=campaign.name,
            may_be_empty=mail.may_be_empty,
            mode="reschedule",
            poke_interval=60,
            timeout=dt.timedelta(minutes=mail.max_lateness_minutes).total_seconds(),
        )
        pull_suppressions = FencedJobOperator(task_id="pull_suppressions", job="pull_suppressions", **fenced)
        plan_push = SparkJobOperator(
            task_id="plan_push",
            job="plan_push",
            published="chunks",
            campaign=campaign.name,
            needs_ledger=True,
            is_gated=True,
            arguments={"ramp_minutes": "{{ params.ramp_minutes }}"},
            pool="spark",
            outlets=[table_asset("chunks")],
        )
        compare_plan = JobOperator(task_id="compare_plan", job="compare_plan", is_gated=True, **provider)
        before_push = [wait_for_build, pull_suppressions, plan_push, compare_plan]
        if campaign.last_look.recent_events:
            looked = {"settings": ["source", "data"], "outlets": [table_asset("recent_events")]}
            pull_recent_events = JobOperator(
                task_id="pull_recent_events", job="pull_recent_events", campaign=campaign.name, **looked
            )
            before_push.append(pull_recent_events)
        list_chunks = JobOperator(task_id="list_chunks", job="list_chunks", result_key="chunks", **delivery)

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
                **fenced,
            )

        pushed = push.expand(chunk=list_chunks.output)
        reconcile_push = JobOperator(
            task_id="reconcile_push", job="reconcile_push", outlets=[table_asset("mirror")], **provider
        )
        before_send = [reconcile_push]
        if mail.approval:
            minutes = mail.approval_minutes
            before_send.append(
                ApproveSendOperator(task_id="approve_send", title=campaign.title, approval_minutes=minutes)
            )
        schedule_send = SendOperator(task_id="schedule_send", job="schedule_send", pool="sendgrid", **fenced)
        chain(*before_push, list_chunks, pushed, *before_send, schedule_send)

    return send()


def broken_dag(name: str):
    # Daily, so that it is red every day until somebody puts the file right.
    @dag(
        dag_id=f"send_{name}",
        schedule=CronDataIntervalTimetable("0 8 * * *", timezone="UTC"),
        tags=["ryml", "send", "broken settings"],
        **DAG_DEFAULTS,
    )
    def send():
        ReadCampaignOperator(task_id="read_campaign", campaign=name)

    send()


for campaign_name, settings in load_all().items():
    send_dag(settings) if isinstance(settings, Campaign) else broken_dag(campaign_name)
