"""How long training takes, and in how much memory, beside implicit's cosine and a plain Spark SQL self-join.

Run:  make bench-train [ARGS="--interactions 4000000 --items 20000"]     (40,000,000 x 200,000 by default)

The interactions are the demo shop's: one per user and item that the user looked at, put into the cart, wished for or
bought. Every contestant is a process of its own, from its start to its end:

  ryml, job       python -m jobs.train_correlations under local[2]: reads the profiles of a lake, fits cosine, and
                  publishes the 20 best others of each item with their exact support, checked by its gate (JVM included)
  ryml, 200 deep  the same with the lists that ranking reads
  implicit        CosineRecommender(K=21), two threads, from the same interactions in an .npz file
  Spark SQL       self-join of (user, item) on the user, count, cosine, row_number() <= 20 over a window per item

The self-join makes a row for each two items of a user: it is run on a part of the users, and its seconds are scaled by
the number of such pairs, after the start of Spark (8 s or what was measured) is taken off. That is kind to it: sort and
shuffle grow faster than their rows. CPU seconds are those of the process and its children: on a busy machine they say
more than the clock. Memory is the largest sum over a process and its children (PSS), the JVM's included.
"""

import argparse
import datetime as dt
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bench.export_rows import Figure, measure
from jobs.demo_shop.catalog_model import Catalog
from jobs.demo_shop.event_model import received_events
from jobs.demo_shop.shop_plan import Shop
from jobs.demo_shop.user_model import UserBlock
from jobs.lake.buckets import bucket_of
from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat, lengths, list_column
from schemas.item_models import COSINE
from schemas.layout import UNDATED, Partition
from schemas.tables import BACKTESTS, EVENT_TYPES, ITEM_INDEX, PROFILES

ROOT = Path(__file__).resolve().parents[1]
DATE = dt.date(2026, 11, 8)
DAYS = 35
BUCKETS = 64
JOIN_PAIRS = 30_000_000  # rows of the self-join that is run

CAMPAIGN = """
title = "Bench"
[mail]
subject = "Hi"
suppression_group = "Recommendations"
[training]
min_records = 1
min_support = 1
items_per_user = 1000
depth = {depth}
[[training.candidates]]
kind = "cooccurrence"
user_exponent = 0.0
other_exponent = 0.5
"""

IMPLICIT = """
import sys, warnings
import numpy as np
from scipy import sparse
warnings.simplefilter("ignore")
from implicit.nearest_neighbours import CosineRecommender
loaded = np.load(sys.argv[1])
matrix = sparse.csr_matrix((np.ones(len(loaded["items"]), np.float32), loaded["items"], loaded["indptr"]),
                           shape=(len(loaded["indptr"]) - 1, int(loaded["shape"])))
model = CosineRecommender(K=21, num_threads=2)
model.fit(matrix, show_progress=False)
sparse.save_npz(sys.argv[2], model.similarity.tocsr(), compressed=False)
print(matrix.nnz)
"""

SELF_JOIN = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config(
    "spark.log.level", "ERROR").config("spark.driver.memory", "4g").config(
    "spark.sql.shuffle.partitions", "16").getOrCreate()
spark.read.parquet(sys.argv[1]).createOrReplaceTempView("interactions")
spark.sql('''
  WITH sizes AS (SELECT item, sqrt(count(*)) AS size FROM interactions GROUP BY item),
  pairs AS (
    SELECT a.item AS item, b.item AS other, count(*) AS support
    FROM interactions a JOIN interactions b ON a.user = b.user AND a.item <> b.item GROUP BY a.item, b.item),
  scored AS (
    SELECT p.item, p.other, p.support, p.support / (s.size * o.size) AS score
    FROM pairs p JOIN sizes s ON p.item = s.item JOIN sizes o ON p.other = o.item)
  SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY item ORDER BY score DESC, other) AS place FROM scored)
  WHERE place <= 20
''').write.parquet(sys.argv[2])
print(spark.read.parquet(sys.argv[1]).count())
spark.stop()
"""
START_OF_SPARK = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config(
    "spark.log.level", "ERROR").getOrCreate()
print(spark.range(1).count())
spark.stop()
"""


def users_items(interactions: int, items: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Draw blocks of the demo shop's users until they have so many interactions; sorted by user, then item."""
    users = max(1_000, interactions // 20)  # more than needed: 28 items per user in 35 days
    # Items are added every day, so that the last day has as many as asked for.
    first_items = max(600, round(items / (1 + 0.005 * (DAYS - 1))))
    shop = Shop.plan(seed=7, users=users, first_date=DATE - dt.timedelta(days=DAYS - 1), items=first_items)
    last_day = shop.first_day + DAYS - 1
    catalog, parts, found, base = Catalog(shop, last_day), [], 0, 0
    interest = np.array([name in ("view", "cart_add", "wishlist_add", "purchase") for name in EVENT_TYPES])
    for block in range(shop.blocks_on(last_day)):
        drawn = UserBlock(shop, block)
        days = [
            np.unique((events.place[interest[events.event_type]] << 20) | events.item[interest[events.event_type]])
            for _, events in received_events(catalog, drawn, shop.first_day, last_day)
        ]
        keys = np.unique(np.concatenate(days))[: interactions - found]
        parts.append((base + (keys >> 20), (keys & (2**20 - 1)).astype(np.int32)))
        found, base = found + len(keys), base + len(drawn.numbers)
        if found == interactions:
            break
    user, item = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return np.unique(user, return_inverse=True)[1], item


def write_inputs(folder: Path, user: npt.NDArray[np.int64], item: npt.NDArray[np.int32]) -> None:
    """Write the interactions as profiles in a lake, as an .npz file, and a part of them for the self-join."""
    items, counts = int(item.max()) + 1, np.bincount(user)
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    np.savez(folder / "interactions.npz", items=item, indptr=indptr, shape=items)
    lake = Lake.open(str(folder / "lake"), buckets=BUCKETS)
    index = pa.array(np.char.zfill(np.arange(items).astype("U6"), 6))
    attempt = lake.attempt(Partition("item_index", UNDATED), "bench")
    rows = pa.table({"item": pa.array(np.arange(items), pa.int32()), "item_id": index}, schema=ITEM_INDEX.schema)
    attempt.publish([attempt.write(rows)], inputs=[], parameters={})
    user_ids = pa.array(np.char.zfill(np.arange(len(counts)).astype("U9"), 9))
    bucket = bucket_of(user_ids, BUCKETS)
    attempt, files = lake.attempt(Partition("profiles", DATE), "bench"), []
    noon = int(dt.datetime.combine(DATE, dt.time(12), dt.UTC).timestamp()) * 1_000_000
    for number in range(BUCKETS):
        chosen = np.flatnonzero(bucket == number)
        size = counts[chosen]
        place = np.repeat(indptr[chosen] - (np.cumsum(size) - size), size) + np.arange(size.sum())
        columns = {
            "item": item[place], "event_type": np.zeros(len(place), np.int8), "count": np.ones(len(place), np.int32),
        }  # fmt: skip
        lists = {name: list_column(PROFILES, name, values, size) for name, values in columns.items()}
        at = pa.array(np.full(len(place), noon)).cast(pa.timestamp("us", tz="UTC"))
        kind = PROFILES.schema.field("last_at").type
        lists["last_at"] = pa.ListArray.from_arrays(lists["item"].offsets, at, type=kind)
        none = np.zeros(len(chosen), np.int64)
        for field in PROFILES.schema:
            if pa.types.is_list(field.type) and field.name not in lists:  # who was mailed what: nobody
                lists[field.name] = list_column(PROFILES, field.name, np.empty(0, np.int32), none)
        profiles = pa.table({"user_id": user_ids.take(pa.array(chosen)), **lists}).select(PROFILES.schema.names)
        files.append(attempt.write(profiles.cast(PROFILES.schema), bucket=number))
    attempt.publish(files, inputs=[], parameters={})
    within = counts.astype(np.int64) * (counts - 1)
    part = int(np.searchsorted(np.cumsum(within), JOIN_PAIRS)) + 1
    end = indptr[min(part, len(counts))]
    pq.write_table(pa.table({"user": user[:end], "item": item[:end]}), folder / "part.parquet")
    (folder / "pairs.json").write_text(json.dumps({"part": int(within[:part].sum()), "all": int(within.sum())}))


def train(folder: Path, depth: int) -> Figure:
    """Run the whole job from profiles to published tables; the backtest's choice is put there first: cosine."""
    campaign, lake = folder / f"bench_{depth}.toml", Lake.open(str(folder / "lake"))
    campaign.write_text(CAMPAIGN.format(depth=depth))
    for table in ("correlations", "product_correlations"):  # of a run before: it would be found, and nothing trained
        shutil.rmtree(folder / "lake" / table / f"campaign={campaign.stem}", ignore_errors=True)
    attempt = lake.attempt(Partition("backtests", DATE, campaign.stem), "bench")
    rows = attempt.write(BACKTESTS.schema.empty_table())
    chosen = {"status": "not judged", "why": "this is a benchmark", "model": COSINE.model_dump(mode="json")}
    attempt.publish([rows], inputs=[], parameters={}, metrics=chosen)
    spark = [str(Path(sys.prefix) / "bin" / "spark-submit"), "--master", "local[2]"]
    # As in Airflow: see SPARK_CONF in plugins/ryml_airflow/launch.py.
    java = "spark.driver.extraJavaOptions=-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    conf = ("spark.ui.enabled=false", "spark.log.level=WARN", "spark.driver.memory=1g", java)
    command = [*spark, *(part for value in conf for part in ("--conf", value)), ROOT / "jobs" / "train_correlations.py"]
    options = ["--lake", folder / "lake", "--date", str(DATE), "--run-id", "bench", "--campaign", campaign]
    environment = {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return measure([*command, *options], **environment)


def differing(folder: Path, sample: int) -> tuple[int, int]:
    """Compare lists with implicit's: (items whose lists differ, items looked at).

    Lists are the same if their scores are (to 1e-4) and every item that is better than the last score stands in both;
    of items with the very same score either may be kept.
    """
    from scipy import sparse

    lake = Lake.open(str(folder / "lake"))
    rows = lake.read(lake.manifest(Partition("correlations", DATE, "bench_20")))
    starts = np.concatenate(([0], np.cumsum(lengths(rows["other_item"]))))
    other, score, item = flat(rows["other_item"]), flat(rows["score"]), rows["item"].to_numpy()
    theirs = sparse.load_npz(folder / "implicit.npz").tocsr()
    chosen = np.random.default_rng(7).choice(len(item), min(sample, len(item)), replace=False)
    different = 0
    for place in chosen.tolist():
        mine = slice(starts[place], starts[place + 1])
        row = theirs[[int(item[place])]]
        keep = row.indices != item[place]
        order = np.argsort(-row.data[keep], kind="stable")[:20]
        their_other, their_score = row.indices[keep][order], row.data[keep][order]
        edge = max(float(score[mine][-1]), float(their_score[-1])) * (1 + 1e-4)
        same = len(their_score) == len(score[mine]) and np.allclose(score[mine], their_score, rtol=1e-4)
        better = set(other[mine][score[mine] > edge].tolist()) == set(their_other[their_score > edge].tolist())
        different += not (same and better)
    return different, len(chosen)


def main(interactions: int, items: int, folder: Path | None, *, peers: bool) -> None:
    """Measure everybody and print the ratios."""
    with tempfile.TemporaryDirectory(prefix="ryml-bench-") as scratch:
        folder = folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        if not (folder / "pairs.json").exists():
            write_inputs(folder, *users_items(interactions, items))
        load = np.load(folder / "interactions.npz")
        print(f"{len(load['items']):,} interactions of {len(load['indptr']) - 1:,} users with {load['shape']:,} items")
        figures = {"ryml, job": train(folder, 20), "ryml, 200 deep": train(folder, 200)}
        if peers:
            figures["implicit"] = measure(
                [sys.executable, "-c", IMPLICIT, folder / "interactions.npz", folder / "implicit.npz"]
            )
        for name, figure in figures.items():
            print(f"  {name:<16}{figure.seconds:8.1f} s {figure.cpu_seconds:8.1f} CPU s {figure.peak_mb:8,.0f} MB")
        if not peers:
            return
        different, looked_at = differing(folder, 1_000)
        print(f"  neighbours: {looked_at - different:,} of {looked_at:,} sampled items have implicit's very lists")
        shutil.rmtree(folder / "joined", ignore_errors=True)
        start = measure([sys.executable, "-c", START_OF_SPARK])
        join = measure([sys.executable, "-c", SELF_JOIN, folder / "part.parquet", folder / "joined"])
        pairs = json.loads((folder / "pairs.json").read_text())
        scale = pairs["all"] / pairs["part"]
        print(
            f"  Spark SQL       {join.seconds:8.1f} s {join.cpu_seconds:8.1f} CPU s {join.peak_mb:8,.0f} MB for "
            f"{pairs['part']:,} of {pairs['all']:,} pairs; its start alone {start.seconds:.1f} s, "
            f"{start.cpu_seconds:.1f} CPU s"
        )
        seconds = start.seconds + (join.seconds - start.seconds) * scale
        cpu = start.cpu_seconds + (join.cpu_seconds - start.cpu_seconds) * scale
        ours, implicit = figures["ryml, job"], figures["implicit"]
        print(f"  scaled by pairs {seconds:8,.0f} s {cpu:8,.0f} CPU s")
        print(
            f"ryml's job: {implicit.seconds / ours.seconds:.2f} times implicit's speed "
            f"({implicit.cpu_seconds / ours.cpu_seconds:.2f} by CPU), {seconds / ours.seconds:.1f} times the "
            f"self-join's ({cpu / ours.cpu_seconds:.1f} by CPU)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=40_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="keep and reuse what is drawn here")
    parser.add_argument("--without-peers", dest="peers", action="store_false", help="ryml alone")
    main(**vars(parser.parse_args()))
