"""How good ranked lists are: full-ranking metrics over users, added up batch by batch."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.lake.list_columns import rank_within


@dataclass(frozen=True)
class RankingFigures:
    """Means over the users that have at least one item to be found."""

    users: int
    recall: float  # share of a user's items that stand in their list
    ndcg: float  # binary relevance, discount 1/log2(rank + 1); the ideal list has all a user's items on top
    mrr: float  # 1 / rank of the first item that was found
    hit_rate: float  # share of users with at least one item found
    coverage: float  # share of all items that stand in somebody's list
    novelty: float  # mean over listed items of -log2(share of the training users that know the item)
    top_item_share: float  # share of the users whose list holds the item listed most often


@dataclass(frozen=True)
class RankingSums:
    """The sums that the figures are made of; those of batches are added."""

    users: int
    recall: float
    ndcg: float
    mrr: float
    hits: int
    novelty: float
    listed: npt.NDArray[np.int64]  # (items,): in how many lists each item stands

    def __add__(self, other: Self) -> "RankingSums":
        return RankingSums(
            self.users + other.users,
            self.recall + other.recall,
            self.ndcg + other.ndcg,
            self.mrr + other.mrr,
            self.hits + other.hits,
            self.novelty + other.novelty,
            self.listed + other.listed,
        )

    def figures(self) -> RankingFigures:
        """Divide; with no user at all every figure is 0."""
        users, listed = max(self.users, 1), max(int(self.listed.sum()), 1)
        return RankingFigures(
            users=self.users,
            recall=self.recall / users,
            ndcg=self.ndcg / users,
            mrr=self.mrr / users,
            hit_rate=self.hits / users,
            coverage=float(np.count_nonzero(self.listed)) / max(len(self.listed), 1),
            novelty=self.novelty / listed,
            top_item_share=float(self.listed.max(initial=0)) / users,
        )


@dataclass(frozen=True)
class UserFigures:
    """Recall and ndcg of each user that has something to be found, in the order of the rows."""

    recall: npt.NDArray[np.float64]
    ndcg: npt.NDArray[np.float64]


def measure(
    ranked: sparse.csr_array, truth: sparse.csr_array, k: int, known_by: npt.NDArray[np.float64]
) -> RankingSums:
    """Compare the first k of each list with what is to be found; users with nothing to be found do not count.

    Shapes: ranked (users, items), each row best first; truth (users, items); known_by (items,): the share of the
            training users that know each item.
    Source: He et al., LightGCN, SIGIR 2020 (recall@k, ndcg@k: full ranking, mean over users).
    """
    return measure_users(ranked, truth, k, known_by)[0]


def measure_users(
    ranked: sparse.csr_array, truth: sparse.csr_array, k: int, known_by: npt.NDArray[np.float64]
) -> tuple[RankingSums, UserFigures]:
    """Do what `measure` does, and give each user's figures beside the sums."""
    items = truth.shape[1]
    wanted = np.diff(truth.indptr)
    row = np.repeat(np.arange(ranked.shape[0], dtype=np.int64), np.diff(ranked.indptr))
    rank = rank_within(row)
    keep = (rank < k) & (wanted[row] > 0)
    row, rank, item = row[keep], rank[keep], ranked.indices[keep].astype(np.int64)
    truth_row = np.repeat(np.arange(truth.shape[0], dtype=np.int64), wanted)
    found = np.isin(row * items + item, truth_row * items + truth.indices)

    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate(([0.0], np.cumsum(discount)))[np.minimum(wanted, k)]
    counts = np.bincount(row[found], minlength=len(wanted))
    gain = np.bincount(row[found], discount[rank[found]], minlength=len(wanted))
    first = np.full(len(wanted), np.inf)
    np.minimum.at(first, row[found], rank[found] + 1.0)
    some = wanted > 0
    # An item that nobody knows is as novel as one known by one user of a million.
    novelty = -np.log2(np.maximum(known_by[item], 1e-6))
    each = UserFigures(counts[some] / wanted[some], gain[some] / ideal[some])
    sums = RankingSums(
        users=int(some.sum()),
        recall=float(each.recall.sum()),
        ndcg=float(each.ndcg.sum()),
        mrr=float((1 / first[some]).sum()),
        hits=int((counts > 0).sum()),
        novelty=float(novelty.sum()),
        listed=np.bincount(item, minlength=items),
    )
    return sums, each
