"""Pull from the provider who must not be mailed: bounces, blocks, spam reports, unsubscribes, the campaign's group.

Reads:  the provider
Writes: suppressions of the campaign and date (keyed hashes of addresses, no address)
Run:    python -m jobs.pull_suppressions --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.command_line import run
from jobs.delivery.addresses import ADDRESS_KEY, canonical_address
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.lake.buckets import keyed_hash
from jobs.lake.summary import summarise
from schemas.layout import Partition
from schemas.tables import SUPPRESSIONS


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
    """Publish the run's suppressions, as keyed hashes."""
    provider, calls = delivery.provider, delivery.calls()
    group = calls.repeat(lambda: provider.ensure_suppression_group(delivery.campaign.mail.suppression_group))

    def pull() -> list[tuple[str, str]]:
        # Of groups only the campaign's own: who left another of the shop's mailings still wants this one.
        return sorted(
            {(kind, canonical_address(found)) for kind, found in provider.suppressed_addresses(group_id=group)}
        )

    found = calls.repeat(pull)
    addresses = pa.array([address for _, address in found], pa.string())
    keys = keyed_hash(addresses, delivery.ledger.key(ADDRESS_KEY))
    rows = pa.table(
        {"address_key": pa.array(keys.view(np.int64)), "kind": pa.array([kind for kind, _ in found], pa.string())},
        schema=SUPPRESSIONS.schema,
    ).sort_by([("address_key", "ascending"), ("kind", "ascending")])
    attempt = delivery.lake.attempt(
        Partition("suppressions", delivery.run.send_date, delivery.campaign.name), delivery.run_id
    )
    kinds = dict(Counter(kind for kind, _ in found))
    return summarise(attempt.publish([attempt.write(rows)], inputs=[], parameters={}, metrics={"kinds": kinds}))


def _pull(delivery: Delivery) -> list[tuple[str, str]]:
    """Ask for everyone who is suppressed; of groups only the campaign's: who left another mailing still wants this."""
    provider = delivery.provider
    group = provider.ensure_suppression_group(delivery.campaign.mail.suppression_group)
    return sorted(
        {(kind, canonical_address(address)) for kind, address in provider.suppressed_addresses(group_id=group)}
    )


if __name__ == "__main__":
    run(main, arg_parser())
