"""How many events a second the demo shop writes as Parquet, next to a plain generator that writes a line per event.

Run:  python bench/demo_shop_events.py [USERS]          (1,000,000 by default; one day, 200,000 items, two processes)

The peer is what one would write first: a loop that draws user, item, type and time with `random` and writes CSV. It has
no tastes, no sessions and no funnel, so it does less work for each event. It runs on one core, over a twentieth of the
events but at least 100,000, and its rate is doubled for comparison with the two processes.

Starting the processes takes about a second and is counted: ten million users show the rate, one million the start.
"""

import argparse
import csv
import datetime as dt
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the worker processes too, which import this file

from jobs.demo_shop.parquet_shop import write_parquet_shop
from jobs.demo_shop.shop_plan import Shop
from schemas.tables import EVENT_TYPES

WORKERS = 2
ITEMS = 200_000
FIRST_DATE = dt.date(2026, 11, 4)
TYPE_WEIGHTS = (84, 7, 2, 3, 1, 3, 1)


def ours(folder: Path, users: int) -> tuple[int, float]:
    """Write the shop; return its events and the seconds for everything: events, users and items."""
    shop = Shop.plan(seed=7, users=users, first_date=FIRST_DATE, items=ITEMS)
    started = time.perf_counter()
    made = write_parquet_shop(folder, shop, days=1, image_base_url="http://127.0.0.1:8085/images", workers=WORKERS)
    return made.events, time.perf_counter() - started


def peer(path: Path, users: int, events: int) -> float:
    """Write so many events in a loop; return the seconds."""
    drawn = random.Random(7)
    midnight = dt.datetime.combine(FIRST_DATE, dt.time(), tzinfo=dt.UTC)
    started = time.perf_counter()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        for event_id in range(events):
            occurred_at = midnight + dt.timedelta(seconds=drawn.random() * 86_400)
            writer.writerow(
                (
                    event_id,
                    f"{drawn.randrange(users):07d}",
                    f"{int(ITEMS * drawn.random() ** 3):06d}",
                    drawn.choices(EVENT_TYPES, TYPE_WEIGHTS)[0],
                    occurred_at.isoformat(timespec="microseconds"),
                    1,
                    f"{drawn.uniform(3, 400):.2f}",
                )
            )
    return time.perf_counter() - started


def main(users: int) -> None:
    """Measure both and print the ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        events, seconds = ours(Path(scratch, "shop"), users)
        size_mb = sum(file.stat().st_size for file in Path(scratch, "shop").rglob("*.parquet")) / 1e6
        peer_events = max(events // 20, 100_000)
        peer_seconds = peer(Path(scratch, "peer.csv"), users, peer_events)
    rate, peer_rate = events / seconds, WORKERS * peer_events / peer_seconds
    print(f"demo shop, {WORKERS} processes: {events:,} events of {users:,} users, {size_mb:,.0f} MB in {seconds:.1f} s")
    print(f"  = {rate:,.0f} events/s, users and items included")
    print(f"plain loop, 1 core: {peer_events:,} events in {peer_seconds:.1f} s; scaled to {WORKERS} cores")
    print(f"  = {peer_rate:,.0f} events/s")
    print(f"ratio: {rate / peer_rate:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int, nargs="?", default=1_000_000)
    main(**vars(parser.parse_args()))
