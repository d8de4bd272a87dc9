"""Run one night in a process of its own, once on a folder and once on S3; print each table's content as JSON.

A process of its own, because Spark's Python workers take the endpoint and keys from the environment that the session
was started with. Used by test_night_on_s3.py: python lake_on_s3.py SHOP FOLDER BUCKET HOST HOST, with the key of both
providers on standard input: arguments are for everybody on the machine to read, and another test looks at them all.
"""

import json
import sqlite3
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from e2e.test_three_days import DAYS, SETTINGS, Night  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

from jobs.delivery.ledger import Ledger  # noqa: E402
from jobs.delivery.timing import utc_now  # noqa: E402
from jobs.lake.lake import Lake  # noqa: E402
from schemas.layout import UNDATED, Partition  # noqa: E402
from schemas.tables import TABLES  # noqa: E402


class Provider:
    """Where the rehearsal provider of the test listens."""

    def __init__(self, host, api_key):
        self.host, self.api_key = host, api_key

    def wait_until_idle(self):
        """Nothing to do: this process only reads its own tables."""


def main(key, shop, folder, bucket, *hosts):
    SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    found, keys = {}, []
    uris = {"folder": f"{folder}/lake", "s3": f"s3://{bucket}/nights/lake"}
    for (name, uri), host in zip(uris.items(), hosts, strict=True):
        place = Path(folder) / name
        place.mkdir()
        night = Night(place, Path(shop), Provider(host, key))
        night.lake_uri = uri
        # A ledger each, or the second would say that everything is pushed already; the same keys give the same bytes.
        night.ledger = f"sqlite:///{place}/ledger.db"
        Ledger(night.ledger, utc_now).key("any")
        with sqlite3.connect(place / "ledger.db") as connection:
            connection.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?)", keys)
        night.build(DAYS[0])
        night.send(DAYS[0])
        with sqlite3.connect(place / "ledger.db") as connection:
            keys = connection.execute("SELECT name, value FROM keys WHERE name != 'any'").fetchall()
        lake = Lake.open(uri)
        found[name] = {
            table.name: [entry.sha256 for entry in manifest.files]
            for table in TABLES.values()
            if (
                manifest := lake.find(
                    Partition(
                        table.name,
                        DAYS[0] if table.dated else UNDATED,
                        SETTINGS.name if table.per_campaign else None,
                    )
                )
            )
        }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.stdin.read(), *sys.argv[1:])
