"""Measure one send: who was planned, reached and mailed, how widely items were shown, and what was bought afterwards.

Purchases that follow a mail are no lift: many would have happened without it. A lift compares everybody whom the plan
mails with the holdout, each by the items of their plan; without a holdout there is no such figure here.

Reads:  the ledger, chunks, receipts and recommendations of the date, events of the dates after it, the provider
Writes: funnel of the campaign and date
Run:    python -m jobs.measure_campaign --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import dataclasses
import datetime as dt
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import run
from jobs.delivery.client import SingleSendStats
from jobs.delivery.people_book import withdrawn
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.lake.item_index import read_index
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.summary import summarise
from jobs.measure.exposure import Exposure
from jobs.measure.follow_up import FollowUp, follow_up
from jobs.measure.lift import Groups
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.mail_send import HOLD_MINUTES
from schemas.tables import EVENTS, FUNNEL, MAIL_OUTCOMES, PLAN_ACTIONS, RECEIPT_OUTCOMES

DAYS_AFTER = 7  # dates after the campaign's date whose purchases are looked at
_MAILED = ("scheduled", "triggered")

_log = logging.getLogger(__name__)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = delivery_parser(__doc__)
    parser.add_argument(
        "--days-after", type=int, default=DAYS_AFTER, help="following dates whose purchases count (%(default)s)"
    )
    return parser


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    campaign: Path,
    ledger: str,
    provider: ProviderAddress,
    days_after: int = DAYS_AFTER,
) -> dict[str, Any]:
    """Publish the funnel; return all its measures.

    Measures whose inputs are not there (no following date yet, recommendations rebuilt since) are left out.
    Raises: EmptyPartitionError if nothing was sent for the date.
    """
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    send = delivery.ledger.send(delivery.run)
    if send is None or send[1] not in _MAILED:
        raise EmptyPartitionError(
            f"{delivery.campaign.name} of {date} was never sent; nothing to measure. Dates that were sent "
            "have a green schedule_send in send_recommendations"
        )
    single_send_id, _, recipients = send
    opened, name = delivery.lake, delivery.campaign.name
    plan, receipts = (opened.manifest(Partition(table, date, name)) for table in ("chunks", "receipts"))
    recommendations = _mailed_from(opened, plan)
    following = _following_events(opened, date, days_after)

    eligible = int(recommendations.metrics["eligible_items"]) if recommendations else None
    exposure, bought, groups = _by_bucket(opened, plan, receipts, following, mailed_at(delivery))
    planned = delivery.ledger.plan_counts(delivery.run)
    if delivery.ledger.method(delivery.run) == "mail_send":
        # The provider counts single sends; of Mail Send it says nothing but the events of each mail. By these a mail
        # may turn out as never sent, days after the ledger wrote down how many were released.
        reached = {f"mails_{outcome}": float(receipts.metrics[outcome]) for outcome in MAIL_OUTCOMES}
        recipients = int(receipts.metrics["delivered"]) + int(receipts.metrics["unknown"])
    else:
        reached = {f"contacts_{outcome}": float(receipts.metrics[outcome]) for outcome in RECEIPT_OUTCOMES}
        reached |= _provider_measures(_stats(delivery, single_send_id))
    measures = {
        **{f"users_planned_{action}": float(planned[action]) for action in PLAN_ACTIONS},
        "recipients": float(recipients - sum(withdrawn(delivery.ledger, delivery.run).values())),
        **reached,
        **exposure.measures(eligible),
        **(_follow_up_measures(bought, following[-1].partition.date - date) if following else {}),
        **(groups.measures() if following else {}),
    }
    attempt = opened.attempt(Partition("funnel", date, name), run_id)
    rows = pa.table({"measure": list(measures), "value": list(measures.values())}, schema=FUNNEL.schema)
    manifest = attempt.publish(
        [attempt.write(rows)],
        inputs=[plan, receipts, *([recommendations] if recommendations else []), *following],
        parameters={"days_after": days_after},
    )
    shown = {key: int(value) if value.is_integer() else round(value, 4) for key, value in measures.items()}
    return {**summarise(manifest), **shown}


def mailed_at(delivery: Delivery) -> dt.datetime:
    """Say when the mail of a date is due. What was bought before that does not follow it.

    Mails of Mail Send are due as long after that as they wait: a deadline, and what the provider needs to hold them.
    """
    ledger, run_ = delivery.ledger, delivery.run
    due_at = delivery.campaign.mail.send_time.due_at(run_.send_date)
    if ledger.method(run_) != "mail_send":
        return due_at
    _, _, start_at = ledger.plan(run_)
    deadline = ledger.deadline(run_)
    return due_at + (deadline - start_at if deadline else dt.timedelta()) + dt.timedelta(minutes=HOLD_MINUTES)


def _mailed_from(lake: Lake, plan: Manifest) -> Manifest | None:
    """Return the recommendations that the plan was made from, or None if they are not there any more."""
    found = lake.find(Partition("recommendations", plan.partition.date, plan.partition.campaign))
    if found is None or plan.inputs.get(str(found.partition)) != found.content_sha256:
        _log.warning(
            "the recommendations that %s was made from expired or were rebuilt; coverage and Gini are left out",
            plan.partition,
        )
        return None
    return found


def _following_events(lake: Lake, date: dt.date, days_after: int) -> list[Manifest]:
    dates = (date + dt.timedelta(days=days) for days in range(1, days_after + 1))
    return [found for day in dates if (found := lake.find(Partition("events", day))) is not None]


def _by_bucket(
    lake: Lake, plan: Manifest, receipts: Manifest, following: list[Manifest], since_at: dt.datetime
) -> tuple[Exposure, FollowUp, Groups]:
    """Go through the user buckets, one in memory at a time."""
    index = read_index(lake)
    exposure, bought, groups = Exposure(len(index)), FollowUp(), Groups()
    columns = ["user_id", "item_id", "event_type", "occurred_at"]
    none = EVENTS.schema.empty_table().select(columns)
    for bucket in range(lake.buckets):
        delivered = lake.read(receipts, bucket=bucket, columns=["user_id", "item", "outcome"])
        delivered = delivered.filter(pc.equal(delivered["outcome"], "delivered"))
        exposure.add(delivered["item"])
        events = pa.concat_tables([none, *(lake.read(day, bucket=bucket, columns=columns) for day in following)])
        bought += follow_up(delivered, events, index, since_at)
        if following:
            planned = lake.read(plan, bucket=bucket, columns=["user_id", "action", "reason", "item"])
            groups += Groups.of(planned, events, index, since_at)
    return exposure, bought, groups


def _stats(delivery: Delivery, single_send_id: str) -> SingleSendStats:
    return delivery.calls().repeat(lambda: delivery.provider.single_send_stats(single_send_id))


def _provider_measures(stats: SingleSendStats) -> dict[str, float]:
    return {f"mail_{name}": float(value) for name, value in dataclasses.asdict(stats).items()}


def _follow_up_measures(bought: FollowUp, span: dt.timedelta) -> dict[str, float]:
    # Exports leave no gap, so the newest following date's events reach back to the campaign's date.
    return {
        "follow_up_days": float(span.days),
        "follow_up_buyers": float(bought.buyers),
        "follow_up_purchases_of_recommended": float(bought.purchases_of_recommended),
        "follow_up_purchases": float(bought.purchases),
        "follow_up_purchases_per_mailed_user": bought.purchases / bought.mailed if bought.mailed else 0.0,
    }


if __name__ == "__main__":
    run(main, arg_parser())
