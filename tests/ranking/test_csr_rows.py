"""Starts of rows: right, and as narrow as SciPy needs them to leave the columns narrow."""

import numpy as np
import pytest
from scipy import sparse

from jobs.ranking.csr_rows import row_starts


@pytest.mark.parametrize("counts", [[], [0], [3, 0, 2], [True, False, True]])
def test_each_row_starts_where_the_one_before_ends(counts):
    starts = row_starts(np.array(counts))
    assert starts.tolist() == [sum(counts[:row]) for row in range(len(counts) + 1)]


def test_columns_stay_in_32_bits_until_the_entries_need_more():
    starts = row_starts(np.array([3, 0, 2]))
    matrix = sparse.csr_array((np.ones(5, np.float32), np.arange(5, dtype=np.int32), starts), shape=(3, 5))
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert row_starts(np.array([2**31 - 1])).dtype == np.int32
    assert row_starts(np.array([2**31])).dtype == np.int64
