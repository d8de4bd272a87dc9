"""Measure a campaign's latest send, and its send of a week ago once more.

There is one such DAG per file in `dags/campaigns/`, due an hour and a half after that campaign's send.
Publishes one table, `funnel`: how many users were planned, pushed and mailed, what the provider says became of the
mails (delivered, opened, clicked, unsubscribed), how widely items were shown (coverage, Gini coefficient, share of the
top item), and what mailed users bought on the dates after. An hour and a half after a send few mails are opened and
nothing is bought yet: `measure_follow_up` measures each send again a week later and replaces the figures.

**Purchases after a mail are not a lift.** Many would have happened without it; only a holdout that is not mailed tells
how many: `lift_buyer_share` compares both by the items of their plan, with its standard error beside it.

**It changes nothing at the provider**, so it can be run again, cleared or backfilled for any date at any time. Receipts
are kept for 15 days (`schemas/retention.py`); older sends cannot be measured again.

**When it fails**: a red `measure_campaign` that says "was never sent" means that the day's send did not happen: look at
the campaign's `send_…` DAG. Anything else names what is missing; clear the task when it is there.

**Not for** deciding whether a send may leave: the gates of the `send_…` DAGs do that.
"""

from airflow.sdk import CronDataIntervalTimetable, dag

from ryml_airflow.campaigns import load_all
from ryml_airflow.dag_defaults import DATE_PARAM, DEFAULT_ARGS, MACROS, table_asset
from ryml_airflow.follow_up import FollowUpOperator, days_before
from ryml_airflow.launch import JobOperator
from ryml_airflow.run_date import run_date_of
from schemas.campaign import Campaign

DAYS_AFTER = 7
MINUTES_AFTER_SEND = 90


def measure_dag(campaign: Campaign):
    hour, minute = campaign.mail.send_time.minutes_later(MINUTES_AFTER_SEND)
    measuring = {
        "campaign": campaign.name,
        "settings": ["ledger"],
        "provider_conn_id": "sendgrid_default",
        "outlets": [table_asset("funnel")],
        "arguments": {"days_after": DAYS_AFTER},
    }

    @dag(
        dag_id=f"measure_{campaign.name}",
        dag_display_name=f"measure: {campaign.title}",
        # On the send's own local day, so both work on the same date.
        schedule=CronDataIntervalTimetable(f"{minute} {hour} * * *", timezone=campaign.mail.zone),
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        user_defined_macros={**MACROS, "run_date": run_date_of(campaign.mail.send_time), "days_before": days_before},
        params={"date": DATE_PARAM},
        tags=["ryml", "measure", "nightly", campaign.name],
        doc_md=__doc__,
    )
    def measure():
        if campaign.mail.may_be_empty:  # a day without a send is no error then
            FollowUpOperator(task_id="measure_campaign", days_after=0, **measuring)
        else:
            JobOperator(task_id="measure_campaign", job="measure_campaign", **measuring)
        FollowUpOperator(task_id="measure_follow_up", days_after=DAYS_AFTER, **measuring)

    return measure()


# A campaign file that cannot be read has a red send_… DAG already.
for settings in load_all().values():
    if isinstance(settings, Campaign):
        measure_dag(settings)
