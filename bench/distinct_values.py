"""How long different ways take to find the different values among many whole numbers.

Run:  PYTHONPATH=. .venv/bin/python bench/distinct_values.py
"""

import time
from collections.abc import Callable

import numpy as np

from jobs.lake.distinct import distinct

CASES = ((1_000_000, 1_000), (1_000_000, 2**62), (10_000_000, 200_000), (10_000_000, 2**62))


def seconds(work: Callable[[np.ndarray], object], values: np.ndarray) -> float:
    """Time one call."""
    started = time.perf_counter()
    work(values)
    return time.perf_counter() - started


def main() -> None:
    """Print one line for each case."""
    for count, below in CASES:
        values = np.random.default_rng(1).integers(0, below, count)
        ours, peer = seconds(distinct, values), seconds(np.unique, values)
        print(f"{count:>10,} values below {below:.0e}: distinct {ours:6.2f} s, np.unique {peer:6.2f} s")


if __name__ == "__main__":
    main()
