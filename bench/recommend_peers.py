"""What ranking alone takes the peers of `bench/recommend.py`, on a subset of the same users: users a second."""

import time

import numpy as np
from scipy import sparse

from bench.large_lake import DATE, Plan
from jobs.lake.list_columns import flat, lengths
from schemas.layout import Partition

IMPLICIT_USERS = 20_000
ALS_USERS = 2_000
RANK = 32


def done_by_users(plan: Plan, users: int) -> sparse.csr_array:
    """What the first users of the profiles have done with which item, as ones."""
    manifest = plan.lake.manifest(Partition("profiles", DATE))
    rows = plan.lake.read(manifest, columns=["item"], bucket=0).slice(0, users)
    item = flat(rows["item"])
    user = np.repeat(np.arange(len(rows)), lengths(rows["item"]))
    matrix: sparse.csr_array = sparse.coo_array(
        (np.ones(len(item), np.float32), (user, item)), shape=(len(rows), plan.items)
    ).tocsr()
    return matrix


def implicit_rate(plan: Plan, near: int) -> tuple[int, float]:
    """Rank with implicit's own batch call over the same correlations; each user's items are filtered out.

    `near`: how many of each item's are taken, as many as ryml's ranking takes at first.
    """
    from implicit.nearest_neighbours import ItemItemRecommender

    manifest = plan.lake.manifest(Partition("correlations", DATE, plan.campaign))
    table = plan.lake.read(manifest, columns=["item", "other_item", "score"])
    keep = np.arange(len(flat(table["score"]))) % int(lengths(table["score"])[0]) < near
    indptr = np.arange(len(table) + 1) * near
    shape = (plan.items, plan.items)
    model = ItemItemRecommender(K=near)
    model.similarity = sparse.csr_matrix(
        (flat(table["score"])[keep].astype(np.float64), flat(table["other_item"])[keep], indptr), shape=shape
    )
    from implicit._nearest_neighbours import NearestNeighboursScorer

    model.scorer = NearestNeighboursScorer(model.similarity)
    matrix = sparse.csr_matrix(done_by_users(plan, IMPLICIT_USERS).astype(np.float64))
    started = time.perf_counter()
    model.recommend(np.arange(matrix.shape[0]), matrix, N=6, filter_already_liked_items=True)
    return matrix.shape[0], matrix.shape[0] / (time.perf_counter() - started)


def spark_als_rate(plan: Plan) -> tuple[int, float]:
    """Rank with Spark's ALS, fitted on the subset; it filters nothing, so 17 more items are asked for."""
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession

    matrix = done_by_users(plan, 10 * ALS_USERS).tocoo()
    spark = (
        SparkSession.builder.master("local[2]").appName("peer").config("spark.ui.enabled", "false")
        .config("spark.log.level", "ERROR").config("spark.driver.memory", "4g").getOrCreate()
    )  # fmt: skip
    import pandas as pd

    ratings = spark.createDataFrame(pd.DataFrame({"user": matrix.row, "item": matrix.col, "rating": matrix.data}))
    # Every item once, so that there are as many to choose from.
    rest = pd.DataFrame({"user": np.full(plan.items, -1), "item": np.arange(plan.items), "rating": np.ones(plan.items)})
    model = ALS(rank=RANK, maxIter=1, implicitPrefs=True, seed=1).fit(ratings.union(spark.createDataFrame(rest)))
    users = spark.createDataFrame(pd.DataFrame({"user": np.arange(ALS_USERS)}))
    started = time.perf_counter()
    model.recommendForUserSubset(users, 6 + 17).write.format("noop").mode("overwrite").save()
    seconds = time.perf_counter() - started
    spark.stop()
    return ALS_USERS, ALS_USERS / seconds
