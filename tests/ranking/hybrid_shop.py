"""A lake with one date of the six kinds of goods, as the jobs before training leave it: no Spark, a second to make."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from catalogs import KINDS, kinds_of_goods, tastes

from jobs.lake.buckets import bucket_of
from jobs.lake.item_index import append_items
from jobs.lake.lake import Lake
from jobs.profiles.fold import Caps, fold
from schemas.layout import Partition
from schemas.tables import EVENTS, USERS

DATE = dt.date(2026, 3, 2)
CAMPAIGN = """
title = "Spring"
[training]
allow_less = true
[hybrid]
components = 16
epochs = {epochs}
min_users = 5
learning_rate = {rate}
max_interactions = {limit}
[mail]
subject = "Hi"
suppression_group = "Recommendations"
"""


@dataclass
class HybridShop:
    """The lake and the campaign; partitions of inputs are published without their gates."""

    folder: Path

    @property
    def lake(self):
        return Lake.open(str(self.folder / "lake"))

    @property
    def campaign(self):
        return self.folder / "spring.toml"

    def settings(self, *, epochs=15, rate=0.05, limit=100_000):
        self.campaign.write_text(CAMPAIGN.format(epochs=epochs, rate=rate, limit=limit))

    def run(self, job, date=DATE, **options):
        return job.main(lake=self.lake.uri, date=date, run_id="night", campaign=self.campaign, **options)

    def manifest(self, table, date=DATE):
        return self.lake.manifest(Partition(table, date, "spring"))

    def read(self, table, date=DATE):
        return self.lake.read(self.manifest(table, date))

    def publish(self, table, rows, date=DATE):
        """Publish rows as the date's partition, in one file or in one a bucket."""
        lake = self.lake
        attempt = lake.attempt(Partition(table, date), "by-hand")
        if "user_id" not in rows.schema.names:
            return attempt.publish([attempt.write(rows)], inputs=[], parameters={})
        bucket = bucket_of(rows["user_id"], lake.buckets)
        files = [
            attempt.write(rows.filter(pa.array(bucket == number)), bucket=number) for number in range(lake.buckets)
        ]
        return attempt.publish(files, inputs=[], parameters={})


def make_shop(folder, *, buckets=3, users=300, date=DATE):
    """Publish catalog, users, item_index and profiles of a shop whose users each like one kind."""
    shop = HybridShop(folder)
    Lake.open(str(folder / "lake"), buckets=buckets)
    shop.settings()
    catalog, interactions = kinds_of_goods(), tastes(users)
    append_items(shop.lake, [catalog["item_id"]], "by-hand")
    shop.publish("catalog", catalog, date)
    ids = [f"user-{n}" for n in range(users)]
    people = [
        {"user_id": name, "is_subscribed": True, "locale": "de-DE", "properties": [("likes", f"kind{n % KINDS}")]}
        for n, name in enumerate(ids)
    ]
    shop.publish("users", pa.Table.from_pylist(people, schema=USERS.schema), date)
    user = np.repeat(np.arange(users), np.diff(interactions.indptr))
    at = dt.datetime.combine(date, dt.time(12), dt.UTC)
    events = pa.table(
        {
            "user_id": pa.array(ids).take(pa.array(user)),
            "item_id": catalog["item_id"].combine_chunks().take(pa.array(interactions.indices)),
            "event_type": ["view"] * len(user),
            "occurred_at": [at - dt.timedelta(hours=int(n) % 200) for n in range(len(user))],
            "quantity": pa.array([1] * len(user), pa.int32()),
            "price": pa.nulls(len(user), EVENTS.schema.field("price").type),
        },
        schema=EVENTS.schema,
    )
    shop.publish(
        "profiles",
        fold(None, events, catalog["item_id"].combine_chunks(), caps=Caps(views=100, states=400), mailed=[]),
        date,
    )
    return shop
