"""Data sets of other kinds, made from the real ones and at random, to see where the choice of a model is not good.

Run:  python -m bench.quality_sets --data DIR --out DIR [NAME ...]

DIR of --data holds online-retail, completejourney-sample, goodbooks-sample and gowalla; OUT/NAME/events.parquet is
written for each name (all of them unless some are named). `make bench-quality DATA=OUT/NAME` measures on it. The same
sets come out every time.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Ints = npt.NDArray[np.int64]
Make = Callable[[Path], pa.Table]


def gowalla_random(data: Path) -> pa.Table:
    """10,000 users, a fifth of whose places is drawn to test."""
    return some_users(read(data, "gowalla"), 10_000).select(["user_id", "item_id"])


def gowalla_few(data: Path) -> pa.Table:
    """5,000 users with the split of the whole."""
    return some_users(read(data, "gowalla"), 5_000)


def gowalla_last_one(data: Path) -> pa.Table:
    """8,000 users, one place of each to be found."""
    return last_one_out(some_users(read(data, "gowalla"), 8_000).select(["user_id", "item_id"]))


def gowalla_thin(data: Path) -> pa.Table:
    """Very many items with few events: a third of the check-ins."""
    return some_rows(read(data, "gowalla").select(["user_id", "item_id"]), 0.33)


def retail_no_time(data: Path) -> pa.Table:
    """Online Retail without its times."""
    return read(data, "online-retail").drop_columns(["ts"])


def retail_frequent(data: Path) -> pa.Table:
    """Purchases of items with at least 10 users."""
    return items_of(purchases(data), 10)


def retail_last_one(data: Path) -> pa.Table:
    """The newest item of each user is to be found."""
    return last_one_out(purchases(data))


def retail_quarter(data: Path) -> pa.Table:
    """A quarter of the users: about 1,000."""
    return some_users(purchases(data), 1_090)


def books_dense(data: Path) -> pa.Table:
    """The half of the users and the tenth of the books with most ratings."""
    events = read(data, "goodbooks-sample")
    return most(most(events, "item_id", 1_000), "user_id", 1_300)


def books_sparse(data: Path) -> pa.Table:
    """A tenth of the ratings."""
    return some_rows(read(data, "goodbooks-sample"), 0.1)


def books_in_time(data: Path) -> pa.Table:
    """Times that say little: each user reads in a month of their own, in any order."""
    events = read(data, "goodbooks-sample")
    rng = np.random.default_rng(11)
    _, user = np.unique(events["user_id"].to_numpy(), return_inverse=True)
    start = rng.uniform(0, 700, user.max() + 1)
    at = (start[user] + rng.exponential(60, len(user))) * 86_400
    return events.append_column("ts", pa.array(at.astype(np.int64)))


def books_last_one(data: Path) -> pa.Table:
    """One book of each user is to be found."""
    return last_one_out(read(data, "goodbooks-sample"))


def journey_no_time(data: Path) -> pa.Table:
    """Complete Journey without its times."""
    return read(data, "completejourney-sample").select(["user_id", "item_id"])


def journey_frequent(data: Path) -> pa.Table:
    """Purchases of items with at least 20 users."""
    return items_of(read(data, "completejourney-sample"), 20)


def journey_groups(data: Path) -> pa.Table:
    """What is bought of 300 kinds of product: few items, and every household comes back to them."""
    events = read(data, "completejourney-sample")
    items = pq.read_table(data / "completejourney-sample" / "items.parquet", columns=["item_id", "product_category"])
    kinds = dict(zip(items["item_id"].to_pylist(), items["product_category"].to_pylist(), strict=True))
    kind = pa.array([kinds.get(item) for item in events["item_id"].to_pylist()])
    return pa.table({"user_id": events["user_id"], "item_id": kind, "ts": events["ts"]})


def nearly_popular(data: Path) -> pa.Table:
    """Popularity drifts, tastes hardly matter: a draw by a power law that wanders."""
    rng = np.random.default_rng(1)
    items, users, rows = 3_000, 4_000, 80_000
    step, periods = 0.15, 50
    log_weight = -0.9 * np.log(np.arange(1, items + 1))
    parts = []
    for _ in range(periods):
        log_weight = log_weight + step * rng.normal(size=items)
        weight = np.exp(log_weight)
        parts.append(rng.choice(items, rows // periods, p=weight / weight.sum()))
    return table(rng.integers(0, users, rows), np.concatenate(parts), np.arange(rows))


def popular_still(data: Path) -> pa.Table:
    """Nothing but a fixed popularity, without times."""
    rng = np.random.default_rng(2)
    weight = 1 / np.arange(1, 2_001)
    user = np.repeat(np.arange(5_000), rng.integers(3, 20, 5_000))
    return table(user, rng.choice(2_000, len(user), p=weight / weight.sum()))


def sequences(data: Path) -> pa.Table:
    """The next item follows from the last: one of five successors, seldom any."""
    rng = np.random.default_rng(3)
    items, users, length = 2_000, 4_000, 25
    after = rng.integers(0, items, (items, 5))
    now = rng.integers(0, items, users)
    user, item, at = [], [], []
    clock = rng.uniform(0, 60, users)
    for _ in range(length):
        pick = after[now, np.minimum(rng.geometric(0.5, users) - 1, 4)]
        now = np.where(rng.random(users) < 0.1, rng.integers(0, items, users), pick)
        clock = clock + rng.exponential(2, users)
        user.append(np.arange(users))
        item.append(now)
        at.append((clock * 86_400).astype(np.int64))
    return table(np.concatenate(user), np.concatenate(item), np.concatenate(at))


def communities(data: Path) -> pa.Table:
    """Forty groups of items, one or two for each user, and a long tail in each."""
    rng = np.random.default_rng(4)
    groups, each, users = 40, 100, 5_000
    weight = 1 / np.arange(1, each + 1) ** 0.7
    home = rng.integers(0, groups, (users, 2))
    user = np.repeat(np.arange(users), rng.integers(5, 30, users))
    group = home[user, (rng.random(len(user)) < 0.25).astype(int)]
    group = np.where(rng.random(len(user)) < 0.1, rng.integers(0, groups, len(user)), group)
    return table(user, group * each + rng.choice(each, len(user), p=weight / weight.sum()))


def few_items(data: Path) -> pa.Table:
    """200 items, 30,000 users with a few each."""
    user, item, at = factors(5, users=30_000, items=200, mean=8, temperature=1.0)
    return table(user, item, at)


def many_items(data: Path) -> pa.Table:
    """60,000 items with 3 events each on average."""
    user, item, _ = factors(6, users=20_000, items=60_000, mean=9, temperature=2.0, blocks=600)
    return table(user, item)


def ratings_like(data: Path) -> pa.Table:
    """Dense, of many tastes, in sessions: a user comes once and says much, as where films are rated."""
    user, item, _ = factors(7, users=3_000, items=2_500, mean=100, temperature=1.2)
    rng = np.random.default_rng(7)
    start = rng.uniform(0, 1_000, user.max() + 1)
    at = (start[user] + rng.exponential(1.0, len(user)) * np.where(rng.random(len(user)) < 0.2, 200, 0.1)) * 86_400
    return table(user, item, at.astype(np.int64))


def listening(data: Path) -> pa.Table:
    """Clicks with many repeats: what is liked comes again and again, what is not comes once."""
    user, item, at = factors(8, users=3_000, items=4_000, mean=40, temperature=1.2)
    rng = np.random.default_rng(8)
    again = np.minimum(rng.geometric(0.35, len(user)), 30)
    noise = 40_000
    user, item, at = (np.repeat(side, again) for side in (user, item, at))
    at = at + rng.integers(0, 30 * 86_400, len(at))
    return table(
        np.concatenate((user, rng.integers(0, 3_000, noise))),
        np.concatenate((item, rng.integers(0, 4_000, noise))),
        np.concatenate((at, rng.integers(at.min(), at.max(), noise))),
    )


def seasons(data: Path) -> pa.Table:
    """Items come and go: each is in demand for about a tenth of the time."""
    user, item, _ = factors(9, users=4_000, items=4_000, mean=25, temperature=1.5)
    rng = np.random.default_rng(9)
    born = rng.uniform(0, 365, 4_000)
    at = (born[item] + rng.exponential(25, len(item))) * 86_400
    return table(user, item, at.astype(np.int64))


def few_users(data: Path) -> pa.Table:
    """250 users of Goodbooks."""
    return some_users(read(data, "goodbooks-sample"), 250)


MAKERS: tuple[Make, ...] = (
    gowalla_random, gowalla_few, gowalla_last_one, gowalla_thin, retail_no_time, retail_frequent, retail_last_one,
    retail_quarter, books_dense, books_sparse, books_in_time, books_last_one, journey_no_time, journey_frequent,
    journey_groups, nearly_popular, popular_still, sequences, communities, few_items, many_items, ratings_like,
    listening, seasons, few_users,
)  # fmt: skip
NAMES = {make.__name__.replace("_", "-"): make for make in MAKERS}


def factors(
    seed: int, *, users: int, items: int, mean: float, temperature: float, rank: int = 12, blocks: int = 1
) -> tuple[Ints, Ints, Ints]:
    """Draw items by popularity and by closeness of taste; a user's number of items has a long tail.

    With blocks a user chooses among one block of the items in two, which keeps large catalogs cheap.
    """
    rng = np.random.default_rng(seed)
    of_items, of_users = rng.normal(size=(items, rank)), rng.normal(size=(users, rank))
    popular = -0.8 * np.log(rng.permutation(items) + 10.0)
    count = np.clip(rng.lognormal(np.log(mean) - 0.32, 0.8, users).astype(np.int64), 2, items // 3)
    size = items // blocks
    user, item = [], []
    for one in range(users):
        mine = np.arange(items)
        if blocks > 1:
            chosen = (one + np.array([0, 7, 31])) % blocks
            mine = np.concatenate([np.arange(block * size, (block + 1) * size) for block in chosen])
        score = popular[mine] + temperature * (of_items[mine] @ of_users[one]) / np.sqrt(rank)
        # The largest of scores with Gumbel noise are a draw without putting back.
        score += rng.gumbel(size=len(mine))
        best = np.argsort(-score)[: min(count[one], len(mine))]
        user.append(np.full(len(best), one))
        item.append(mine[best])
    at = rng.integers(0, 365 * 86_400, int(sum(len(part) for part in user)))
    return np.concatenate(user), np.concatenate(item), at


def table(user: Ints, item: Ints, at: Ints | None = None) -> pa.Table:
    """Lay columns out."""
    columns = {"user_id": pa.array(user), "item_id": pa.array(item)}
    return pa.table(columns if at is None else columns | {"ts": pa.array(at)})


def read(data: Path, name: str) -> pa.Table:
    """Read the columns of a real set that count, rows with a user only."""
    path = data / name / "events.parquet"
    names = pq.read_schema(path).names
    wanted = [name for name in ("user_id", "item_id", "event_type", "ts", "split") if name in names]
    events = pq.read_table(path, columns=wanted)
    return events.filter(pc.is_valid(events["user_id"]))


def purchases(data: Path) -> pa.Table:
    """Give Online Retail's purchases."""
    events = read(data, "online-retail")
    return events.filter(pc.equal(events["event_type"], "purchase"))


def some_users(events: pa.Table, users: int) -> pa.Table:
    """Draw users, with all their rows."""
    _, user = np.unique(events["user_id"].to_numpy(), return_inverse=True)
    chosen = np.random.default_rng(10).permutation(user.max() + 1) < users
    return events.filter(pa.array(chosen[user]))


def some_rows(events: pa.Table, share: float) -> pa.Table:
    """Draw rows."""
    return events.filter(pa.array(np.random.default_rng(12).random(len(events)) < share))


def items_of(events: pa.Table, users: int) -> pa.Table:
    """Keep the items of at least so many users."""
    counts = events.group_by("item_id").aggregate([("user_id", "count_distinct")])
    kept = counts.filter(pc.greater_equal(counts["user_id_count_distinct"], users))["item_id"]
    return events.filter(pc.is_in(events["item_id"], kept.combine_chunks()))


def most(events: pa.Table, name: str, n: int) -> pa.Table:
    """Keep the users or items with most rows."""
    counts = (
        events.group_by(name)
        .aggregate([(name, "count")])
        .sort_by([(f"{name}_count", "descending"), (name, "ascending")])
    )
    return events.filter(pc.is_in(events[name], counts[name][:n].combine_chunks()))


def last_one_out(events: pa.Table) -> pa.Table:
    """Let the newest item of each user test (without times: any)."""
    _, user = np.unique(events["user_id"].to_numpy(), return_inverse=True)
    random = np.random.default_rng(13).random(len(user))
    at = events["ts"].cast(pa.int64()).to_numpy() if "ts" in events.column_names else random
    order = np.lexsort((random, at, user))
    last = np.zeros(len(user), bool)
    last[order] = np.append(user[order][1:] != user[order][:-1], True)
    keep = events.drop_columns(["split"]) if "split" in events.column_names else events
    return keep.append_column("split", pa.array(np.where(last, "test", "train")))


def main(*, data: Path, out: Path, names: list[str]) -> None:
    """Write the sets."""
    if unknown := sorted(set(names) - set(NAMES)):
        raise SystemExit(f"unknown sets {', '.join(unknown)}, expected some of {', '.join(NAMES)}")
    for name in names or NAMES:
        events = NAMES[name](data)
        (out / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(events, out / name / "events.parquet")
        users, items = pc.count_distinct(events["user_id"]).as_py(), pc.count_distinct(events["item_id"]).as_py()
        print(f"{name}: {len(events):,} events, {users:,} users, {items:,} items", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four real sets")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets NAME/events.parquet")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(NAMES)}")
    main(**vars(parser.parse_args()))
