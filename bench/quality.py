"""How good ryml's recommendations are beside the usual libraries', on any folder with an events.parquet.

Run:  make bench-quality DATA=DIR OUT=DIR      [ARGS="--models ease,ryml --peer-defaults"]

`events.parquet` (a file, or a folder of part files) has user_id and item_id (of any type), and may have event_type,
ts and split. Rows without an id and events that undo interest (cancellation, refund, removal, return) are left out.
`split` says which rows test ("test", "testing" or "holdout", in any case); else the newest fifth by `ts`; else a fifth
of each user's items, drawn with a fixed seed. What tests is what the user does not have in training. Every model ranks
all items for every test user, their training items left out; users without training, and lists that are short, get
what is most popular, whatever the model.

One JSON line per model: recall@20 and ndcg@20 (means over all users with something to find), coverage (share of the
training items that stand in somebody's list), seconds to choose settings, to fit and to score. OUT/MODEL.parquet holds
each test user's list: user_id, item_id, rank (from 1).

For ryml the recall of its lists cut as they are published (scores above 0, the best 200 and the best 20) stands beside.

Settings are chosen on a part of the training data that is held back in the same way (a split is looked at: does it test
on what is newest, on what is newest of each user, or on any): by ryml among its item models, by
each peer among a few of its settings (--peer-defaults: the first of them). Models that do not fit say why.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from bench.quality_data import Data, read
from bench.quality_peers import PEERS, DoesNotFitError, N, Peer, rank
from jobs.ranking.choose import choose
from jobs.ranking.item_model import fit
from jobs.ranking.metrics import measure
from jobs.ranking.rank_users import fill_up, lists_of, nearest, rank_users
from jobs.ranking.validation import ITEMS_PER_USER, Fold, Weighting, folds
from schemas.errors import RymlError
from schemas.item_models import CooccurrenceModel

# How deep ryml's lists are in the end; docs/models.md says what shorter ones cost.
DEPTH = 1_000
# The lists that ranking has, and those that other readers get; see docs/models.md.
PUBLISHED_DEPTHS = (200, 20)
REPEATS = Weighting(repeats=True)


def main(*, data: Path, out: Path, models: list[str], threads: int, peer_defaults: bool) -> None:
    """Measure each model and print its line."""
    known = [*(peer.name for peer in PEERS), "ryml"]
    if unknown := sorted(set(models) - set(known)):
        raise SystemExit(f"unknown models {', '.join(unknown)}, expected some of {', '.join(known)}")
    found = read(data)
    out.mkdir(parents=True, exist_ok=True)
    held_back = folds(found.train, found.held_back)
    has = np.bincount(found.train.user, minlength=found.train.shape[0])
    facts = {
        "data": data.name,
        "protocol": found.protocol,
        "users": found.train.shape[0],
        "items": found.train.shape[1],
        "training_pairs": len(found.train.user),
        "test_users": len(found.test_users),
        "test_users_without_training": int((has[found.test_users] == 0).sum()),
    }
    say(facts)
    for peer in PEERS:
        if peer.name in models:
            report(found, out, peer.name, lambda peer=peer: by_peer(found, held_back, peer, threads, peer_defaults))
    if "ryml" in models:
        report(found, out, "ryml", lambda: by_ryml(found, held_back, threads))


def report(data: Data, out: Path, name: str, run: Callable[[], tuple[sparse.csr_array, dict[str, Any]]]) -> None:
    """Run a model, keep its lists, and say how good they are."""
    try:
        ranked, facts = run()
    except (DoesNotFitError, MemoryError, RymlError) as error:
        say({"model": name, "skipped": str(error) or type(error).__name__})
        return
    users = data.test_users
    popularity = np.bincount(data.train.item, minlength=data.train.shape[1]).astype(np.float64)
    full = fill_up(ranked, data.train.matrix()[users], popularity, N)
    figures = measure(full, data.test[users], N, popularity / max(data.train.shape[0], 1)).figures()
    row = np.repeat(np.arange(len(users)), np.diff(full.indptr))
    lists = pa.table(
        {
            "user_id": data.users.take(pa.array(users[row])),
            "item_id": data.items.take(pa.array(full.indices.astype(np.int64))),
            "rank": pa.array((np.arange(full.nnz) - full.indptr[row] + 1).astype(np.int32)),
        }
    )
    pq.write_table(lists, out / f"{name}.parquet")
    coverage = len(np.unique(full.indices)) / max(np.count_nonzero(popularity), 1)
    say({"model": name, f"recall@{N}": round(figures.recall, 5), f"ndcg@{N}": round(figures.ndcg, 5),
         "coverage": round(coverage, 5), **facts})  # fmt: skip


def by_peer(
    data: Data, held_back: Iterable[Fold], peer: Peer, threads: int, defaults: bool
) -> tuple[sparse.csr_array, dict[str, Any]]:
    """Take the better of a peer's settings on what is held back, and rank with it."""
    started = time.perf_counter()
    best = peer.settings[0]
    fold = next(iter(held_back), None)
    if len(peer.settings) > 1 and not defaults and fold is not None:
        learn = fold.learn.matrix(REPEATS)
        nobody = np.ones(learn.shape[1])

        def ndcg(settings: dict[str, Any]) -> float:
            ranked = rank(peer.fit(learn, settings, threads), learn, fold.users)
            return measure(ranked, fold.truth, N, nobody).figures().ndcg

        best = max(peer.settings, key=ndcg)
    chosen = time.perf_counter()
    train = data.train.matrix(REPEATS)
    scorer = peer.fit(train, best, threads)
    fitted = time.perf_counter()
    if peer.name == "popularity":  # what `report` fills lists with
        ranked = sparse.csr_array((len(data.test_users), train.shape[1]), dtype=np.float32)
    else:
        ranked = rank(scorer, train, data.test_users)
    scored = time.perf_counter()
    # Users without training have no list of their own; all get the same one in `report`.
    has = np.diff(train.indptr)[data.test_users] > 0
    keep = np.repeat(has, np.diff(ranked.indptr))
    indptr = np.concatenate(([0], np.cumsum(np.where(has, np.diff(ranked.indptr), 0))))
    ranked = sparse.csr_array((ranked.data[keep], ranked.indices[keep], indptr), shape=ranked.shape)
    return ranked, seconds(started, chosen, fitted, scored) | {"settings": best}


def by_ryml(data: Data, held_back: list[Fold], threads: int) -> tuple[sparse.csr_array, dict[str, Any]]:
    """Choose on what is held back, learn from all the training part, and rank."""
    started = time.perf_counter()
    choice = choose([capped(fold) for fold in held_back], threads=threads)
    chosen = time.perf_counter()
    train = data.train.capped(ITEMS_PER_USER)
    settings = choice.recipe.model
    if isinstance(settings, CooccurrenceModel) and settings.sharpening > 0:
        settings = settings.model_copy(update={"sharpened": DEPTH})
    model = fit(train.matrix(choice.recipe.learn), settings, threads=threads)
    lists = lists_of(model, train.shape[1], DEPTH, threads=threads)
    fitted = time.perf_counter()
    # What a user has is left out whole; what speaks for them is capped.
    used = lists if choice.recipe.neighbours is None else nearest(lists, choice.recipe.neighbours)
    ranked = rank_users(data.train.matrix(choice.recipe.history)[data.test_users], used, N, threads=threads)
    scored = time.perf_counter()
    history = data.train.matrix(choice.recipe.history)[data.test_users]
    as_published = {
        f"recall@{N}_of_lists_of_{depth}": round(recall_of(data, rank_users(history, short, N, threads=threads)), 5)
        for depth, short in ((depth, nearest(lists, depth)) for depth in PUBLISHED_DEPTHS)
    }
    return ranked, seconds(started, chosen, fitted, scored) | as_published | {
        "settings": choice.recipe.model_dump(exclude_defaults=True),
        "tried": len(choice.trials),
        "folds": len(held_back),
    }


def recall_of(data: Data, ranked: sparse.csr_array) -> float:
    """Measure lists as `report` does."""
    users = data.test_users
    popularity = np.bincount(data.train.item, minlength=data.train.shape[1]).astype(np.float64)
    full = fill_up(ranked, data.train.matrix()[users], popularity, N)
    return measure(full, data.test[users], N, np.ones(data.train.shape[1])).figures().recall


def capped(fold: Fold) -> Fold:
    """Cap what is learned from each user."""
    return Fold(fold.learn.capped(ITEMS_PER_USER), fold.users, fold.truth)


def seconds(started: float, chosen: float, fitted: float, scored: float) -> dict[str, float]:
    """Name the times between."""
    return {
        "choose_seconds": round(chosen - started, 2),
        "fit_seconds": round(fitted - chosen, 2),
        "score_seconds": round(scored - fitted, 2),
    }


def say(facts: dict[str, Any]) -> None:
    """Print one JSON line."""
    print(json.dumps(facts), flush=True)


def arguments() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="make bench-quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with events.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets MODEL.parquet for each model")
    names = ",".join([*(peer.name for peer in PEERS), "ryml"])
    parser.add_argument("--models", default=names, type=lambda text: text.split(","), help=f"some of {names}")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-defaults", action="store_true", help="peers do not choose among settings")
    return parser


if __name__ == "__main__":
    try:
        main(**vars(arguments().parse_args()))
    except RymlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
