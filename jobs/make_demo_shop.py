"""Make the demo shop: a SQLite database that is extended by the days that are missing, or Parquet files for benchmarks.

Reads:  the database of an earlier call, if there is one
Writes: the database (--path), or a new folder of Parquet files (--parquet)
Run:    python -m jobs.make_demo_shop --path shop.sqlite --users 5000 --first-date 2026-09-04 --last-date 2026-11-04
        python -m jobs.make_demo_shop --parquet bench-shop --users 10000000 --days 1 --items 200000
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.demo_shop.parquet_shop import write_parquet_shop
from jobs.demo_shop.shop_plan import Shop
from jobs.demo_shop.sqlite_shop import make_shop
from schemas.errors import ConfigError


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("--path", type=Path, help="the SQLite database to make or extend")
    output.add_argument("--parquet", type=Path, metavar="FOLDER", help="a new folder for Parquet files instead")
    parser.add_argument(
        "--users", type=int, default=5_000, help="users on the first date; a thousandth joins daily (%(default)s)"
    )
    parser.add_argument("--items", type=int, help="items on the first date (a fifth of the users, 600 to 200,000)")
    parser.add_argument("--seed", type=int, default=7, help="another seed is another shop (%(default)s)")
    parser.add_argument(
        "--first-date",
        type=dt.date.fromisoformat,
        default=dt.date(2026, 9, 4),
        help="UTC day of the first events (%(default)s)",
    )
    parser.add_argument(
        "--last-date", type=dt.date.fromisoformat, help="UTC day of the last events; needed with --path"
    )
    parser.add_argument("--days", type=int, default=1, help="with --parquet: how many days of events (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="with --parquet: processes that write (%(default)s)")
    parser.add_argument(
        "--image-base-url", default="http://127.0.0.1:8085/images", help="where item pictures are served (%(default)s)"
    )
    return parser


def main(
    *,
    path: Path | None,
    parquet: Path | None,
    users: int,
    items: int | None,
    seed: int,
    first_date: dt.date,
    last_date: dt.date | None,
    days: int,
    workers: int,
    image_base_url: str,
) -> dict[str, Any]:
    """Make or extend the one or write the other; return how many rows there are."""
    shop = Shop.plan(seed=seed, users=users, first_date=first_date, items=items)
    if parquet is not None:
        files = write_parquet_shop(parquet, shop, days=days, image_base_url=image_base_url, workers=workers)
        return {"users": files.users, "items": files.items, "events": files.events}
    if path is None or last_date is None:
        raise ConfigError(
            "--path was given without --last-date; expected the day up to which to make the shop. Add it."
        )
    made = make_shop(path, shop, last_date=last_date, image_base_url=image_base_url)
    return {
        "users": made.users,
        "items": made.items,
        "events": made.events,
        "last_date": str(made.last_date),
        "days_added": made.days_added,
    }


if __name__ == "__main__":
    run(main, arg_parser())
