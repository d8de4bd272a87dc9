"""Measure the morning's send, and the send of a week ago once more.

Publishes one table, `funnel`: how many users were planned, pushed and mailed, what the provider says became of the
mails (delivered, opened, clicked, unsubscribed), how widely items were shown (coverage, Gini coefficient, share of the
top item), and what mailed users bought on the dates after. An hour and a half after a send few mails are opened and
nothing is bought yet: `measure_follow_up` measures each send again a week later and replaces the figures.

**Purchases after a mail are not a lift.** Many would have happened without it; only a holdout that is not mailed tells
how many.

**It changes nothing at the provider**, so it can be run again, cleared or backfilled for any date at any time. Receipts
are kept for 15 days (`schemas/retention.py`); older sends cannot be measured again.

**When it fails**: a red `measure_campaign` that says "was never sent" means that this morning's send did not happen:
look at `send_recommendations`. Anything else names what is missing; clear the task when it is there.

**Not for** deciding whether a send may leave: the gates of `send_recommendations` do that.
"""

from airflow.sdk import CronDataIntervalTimetable, dag

from ryml_airflow.campaigns import load
from ryml_airflow.dag_defaults import DATE_PARAM, DEFAULT_ARGS, MACROS, table_asset
from ryml_airflow.follow_up import FollowUpOperator, days_before
from ryml_airflow.launch import JobOperator

CAMPAIGN = load("resources_you_may_like")
DELIVERY = {
    "campaign": CAMPAIGN.name,
    "settings": ["ledger"],
    "provider_conn_id": "sendgrid_default",
    "outlets": [table_asset("funnel")],
}
DAYS_AFTER = 7


@dag(
    # An hour and a half after the send (09:30), on the same day: so both work on the same date.
    schedule=CronDataIntervalTimetable(f"30 {min(CAMPAIGN.mail.hour + 1, 23)} * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    user_defined_macros={**MACROS, "days_before": days_before},
    params={"date": DATE_PARAM},
    tags=["ryml", "measure", "nightly"],
    doc_md=__doc__,
)
def measure_campaigns():
    JobOperator(task_id="measure_campaign", job="measure_campaign", arguments={"days_after": DAYS_AFTER}, **DELIVERY)
    FollowUpOperator(
        task_id="measure_follow_up", days_after=DAYS_AFTER, arguments={"days_after": DAYS_AFTER}, **DELIVERY
    )


measure_campaigns()
