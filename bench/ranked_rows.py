"""What one user's list costs in ryml's compiled loop, beside sparse_dot_topn on the same matrices, one core each.

Run:  PYTHONPATH=. .venv/bin/python bench/ranked_rows.py [--users 100000] [--neighbours 50]

5 recent items and 20 that are ruled out per user, 200,000 items of very different popularity. The package multiplies
[R | E] with [C ; -M·I], M larger than any score: what is ruled out comes out negative. Both give 6 items to each user;
the package's are not put right where scores are equal, and neither has caps.
"""

import argparse
import time

import numpy as np
from scipy import sparse
from sparse_dot_topn import sp_matmul_topn

from bench.large_lake import popular
from jobs.ranking.capped_lists import capped_lists

ITEMS, RECENT, RULED_OUT, SLOTS, PENALTY = 200_000, 5, 20, 6, 1e6


def lists(rng: np.random.Generator, rows: int, length: int) -> sparse.csr_array:
    """Draw rows of as many popular items each, with scores up to 1."""
    row, item = np.repeat(np.arange(rows), length), popular(rng, ITEMS, rows * length)
    return sparse.coo_array((rng.random(rows * length, np.float32), (row, item)), shape=(rows, ITEMS)).tocsr()


def main(users: int, neighbours: int) -> None:
    """Print microseconds per user and the ratio."""
    rng = np.random.default_rng(1)
    near, recent, out = lists(rng, ITEMS, neighbours), lists(rng, users, RECENT), lists(rng, users, RULED_OUT)
    penalty = sparse.diags_array(np.full(ITEMS, -PENALTY, np.float32), format="csr")
    left = sparse.csr_matrix(sparse.hstack([recent, out.astype(bool)], format="csr", dtype=np.float32))
    right = sparse.csr_matrix(sparse.vstack([near, penalty], format="csr", dtype=np.float32))
    for matrix in (left, right):
        matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    capped_lists(recent[:10], near, out[:10], SLOTS)  # compiles
    started = time.perf_counter()
    ours = capped_lists(recent, near, out, SLOTS)
    half = time.perf_counter()
    theirs = sp_matmul_topn(left, right, top_n=SLOTS, threshold=0.0, sort=True, n_threads=1)
    seconds = half - started, time.perf_counter() - half
    same = float(np.mean(ours.data == theirs.data)) if ours.nnz == theirs.nnz else 0.0
    print(
        f"{users:,} users, {neighbours} neighbours: ryml {seconds[0] / users * 1e6:.1f} us a user, sparse_dot_topn "
        f"{seconds[1] / users * 1e6:.1f} us: {seconds[1] / seconds[0]:.1f} times; {same:.4%} of the scores are equal"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--neighbours", type=int, default=50)
    main(**vars(parser.parse_args()))
