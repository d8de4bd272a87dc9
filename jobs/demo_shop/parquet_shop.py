"""The demo shop as Parquet files, written straight away: input for benchmarks up to tens of millions of users.

FOLDER/events/YYYY-MM-DD-NNNNN.parquet   what the users of block NNNNN did that was received on the day, in that order
FOLDER/users/NNNNN.parquet               the users of a block at the end of the last day
FOLDER/items/NNNNN.parquet               the items at the end of the last day

Columns are those of the SQLite database, with Arrow's types for instants, money and truth values. Blocks are
independent of each other, so worker processes share them out; the files do not depend on how many workers there are.
`event_id` is unique over all files and ascending within a day's file, not over the day.
"""

import logging
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo_shop.catalog_model import Catalog
from jobs.demo_shop.event_model import received_events
from jobs.demo_shop.shop_plan import Shop, day_date
from jobs.demo_shop.shop_tables import USER_ID_DIGITS, events_table, item_ids, items_table, padded, users_table
from jobs.demo_shop.user_model import UserBlock
from schemas.errors import ConfigError, StorageError

log = logging.getLogger(__name__)

# A block has 131,072 users, who together cause some 220,000 events a day: 24 bits leave room for 70 times as many.
EVENT_ID_BITS: Final = 24
ITEMS_PER_FILE: Final = 100_000
# user_id hardly repeats within a file, so a dictionary of it would be larger than the column.
DICTIONARY_COLUMNS: Final = {
    "events": ["item_id", "event_type", "quantity", "price"],
    "users": ["locale", "country", "age_band", "gender", "is_subscribed"],
    "items": ["category", "brand", "currency", "color", "material"],
}


@dataclass(frozen=True)
class ParquetSummary:
    """How many rows were written."""

    users: int
    items: int
    events: int


def write_parquet_shop(folder: Path, shop: Shop, *, days: int, image_base_url: str, workers: int) -> ParquetSummary:
    """Write the first `days` days of the shop; all of it or nothing. Memory: 250 MB per worker (200,000 items).

    Raises: ConfigError if the folder exists or a number is out of range; StorageError if it cannot be written.
    """
    if days < 1 or workers < 1:
        raise ConfigError(f"days is {days}, workers is {workers}; expected at least 1 of each. Change the options.")
    if folder.exists():
        raise ConfigError(f"{folder} exists already; expected a new folder to write. Give another, or remove it.")
    last_day = shop.first_day + days - 1
    try:
        with _staged(folder) as staging, _workers(workers) as executor:
            tasks = [
                executor.submit(_write_block, staging, shop, block, last_day)
                for block in range(shop.blocks_on(last_day))
            ]
            items = _write_items(staging, shop, last_day, image_base_url)
            written = [task.result() for task in tasks]
    except OSError as error:
        raise StorageError(
            f"{folder}: {error}; expected room to write Parquet files. Check the free disk space and the permissions; "
            "nothing was kept."
        ) from error
    summary = ParquetSummary(users=sum(users for users, _ in written), items=items, events=sum(n for _, n in written))
    log.info("%s: %d events of %d users on %d items", folder.name, summary.events, summary.users, summary.items)
    return summary


def _write_block(folder: Path, shop: Shop, block: int, last_day: int) -> tuple[int, int]:
    """Write one block's users and events; return how many of each."""
    pa.set_cpu_count(1)  # the workers are the parallelism
    catalog, ids = _catalog(shop, last_day)
    users = UserBlock(shop, block)
    user_ids = padded(users.numbers, USER_ID_DIGITS)
    members = users.members(last_day)
    _write(folder, "users", f"{block:05d}", users_table(users, np.arange(members), last_day))
    count = 0
    for day, events in received_events(catalog, users, shop.first_day, last_day):
        first_event_id = ((day - shop.first_day) * shop.blocks_on(last_day) + block) << EVENT_ID_BITS
        table = events_table(events, user_ids, ids, first_event_id)
        _write(folder, "events", f"{day_date(day)}-{block:05d}", table)
        count += len(events)
    return members, count


@lru_cache(maxsize=1)
def _catalog(shop: Shop, last_day: int) -> tuple[Catalog, Any]:
    """Keep a worker's catalog and item ids from block to block: making them takes a third of a block's time."""
    catalog = Catalog(shop, last_day)
    return catalog, item_ids(catalog)


def _write_items(folder: Path, shop: Shop, last_day: int, image_base_url: str) -> int:
    catalog = Catalog(shop, last_day)
    for start in range(0, catalog.size, ITEMS_PER_FILE):
        items = np.arange(start, min(start + ITEMS_PER_FILE, catalog.size))
        table = items_table(catalog, items, last_day, image_base_url)
        _write(folder, "items", f"{start // ITEMS_PER_FILE:05d}", table)
    return catalog.size


def _write(folder: Path, table_name: str, stem: str, table: pa.Table) -> None:
    pq.write_table(
        table,
        folder / table_name / f"{stem}.parquet",
        compression="lz4",
        use_dictionary=DICTIONARY_COLUMNS[table_name],
        write_page_checksum=True,
    )


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give a folder to write in, which takes the wanted name only when all is written."""
    staging = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    for table_name in DICTIONARY_COLUMNS:
        (staging / table_name).mkdir(parents=True)
    try:
        yield staging
        staging.replace(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


@contextmanager
def _workers(count: int) -> Iterator[Executor]:
    """Start worker processes; spawned, because Arrow's threads do not survive a fork."""
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
