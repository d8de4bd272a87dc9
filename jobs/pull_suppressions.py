"""Pull from the provider who must not be mailed: bounces, blocks, spam reports, unsubscribes, the campaign's group.

Reads:  the provider, the suppressions before the date
Writes: suppressions of the campaign and date (keyed hashes of addresses, no address)
Run:    python -m jobs.pull_suppressions --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import run
from jobs.delivery.addresses import ADDRESS_KEY, canonical_address
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.delivery.withdraw import OVERLAP, PULLED_AT
from jobs.lake.buckets import keyed_hash
from jobs.lake.manifest import Manifest
from jobs.lake.summary import summarise
from schemas.layout import Partition
from schemas.tables import SUPPRESSIONS

GROUP_KIND: Final = "group_unsubscribes"
WHOLE_AT: Final = "whole_at"  # when everything was asked for last
WHOLE_DAYS: Final = 7
KEY_CHECK: Final = "key_check"


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return delivery_parser(__doc__)


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress
) -> dict[str, Any]:
    """Publish the suppressed addresses; return how many there are of each kind. None is fine."""
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return pull_suppressions(delivery)


def pull_suppressions(delivery: Delivery) -> dict[str, Any]:
    """Publish the run's suppressions, as keyed hashes.

    Asks for what is new since the partition before, and once a week for everything: only that shows who was taken off
    a list at the provider. The campaign's group comes whole each time, so who joins it again is mailed the next night.
    """
    provider, calls, pulled_at = delivery.provider, delivery.calls(), delivery.timing.clock()
    group = calls.repeat(lambda: provider.ensure_suppression_group(delivery.campaign.mail.suppression_group))
    key = delivery.ledger.key(ADDRESS_KEY)
    before = _before(delivery, pulled_at, check_of(key))
    since = dt.datetime.fromisoformat(before.metrics[PULLED_AT]) - OVERLAP if before else None

    def pull() -> list[tuple[str, str]]:
        # Of groups only the campaign's own: who left another of the shop's mailings still wants this one.
        return sorted(
            {(kind, canonical_address(found)) for kind, found in provider.suppressed_addresses(since, group_id=group)}
        )

    found = calls.repeat(pull)
    keys = keyed_hash(pa.array([address for _, address in found], pa.string()), key)
    rows = pa.table(
        {"address_key": pa.array(keys.view(np.int64)), "kind": pa.array([kind for kind, _ in found], pa.string())},
        schema=SUPPRESSIONS.schema,
    )
    if before is not None:
        held = delivery.lake.read(before)
        held = held.filter(pc.not_equal(held["kind"], GROUP_KIND))
        rows = pa.concat_tables([held, rows]).group_by(["address_key", "kind"]).aggregate([])
    rows = rows.sort_by([("address_key", "ascending"), ("kind", "ascending")])
    attempt = delivery.lake.attempt(
        Partition("suppressions", delivery.run.send_date, delivery.campaign.name), delivery.run_id
    )
    whole_at = before.metrics[WHOLE_AT] if before else pulled_at.isoformat()
    metrics = {
        "kinds": dict(Counter(rows["kind"].to_pylist())),
        PULLED_AT: pulled_at.isoformat(),
        WHOLE_AT: whole_at,
        KEY_CHECK: check_of(key),
    }
    published = attempt.publish(
        [attempt.write(rows)], inputs=[before] if before else [], parameters={}, metrics=metrics
    )
    return {**summarise(published), "pulled": len(found)}


def _before(delivery: Delivery, now: dt.datetime, key_check: str) -> Manifest | None:
    """The partition to go on from; None if everything has to be asked for.

    A partition of another ledger's key is no use: its hashes are of nobody that this one knows.
    """
    yesterday = delivery.run.send_date - dt.timedelta(days=1)
    found = delivery.lake.latest("suppressions", up_to=yesterday, campaign=delivery.campaign.name, days=WHOLE_DAYS)
    if found is None or found.metrics.get(KEY_CHECK) != key_check:
        return None
    whole_at = dt.datetime.fromisoformat(found.metrics[WHOLE_AT])
    return found if dt.timedelta(0) <= now - whole_at < dt.timedelta(days=WHOLE_DAYS) else None


def check_of(key: str) -> str:
    """Say which key hashes were made with, without giving it away."""
    return hashlib.sha256(f"ryml suppressions {key}".encode()).hexdigest()[:16]


if __name__ == "__main__":
    run(main, arg_parser())
