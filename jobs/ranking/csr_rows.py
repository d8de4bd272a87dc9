"""Sparse matrices put together row by row; SciPy's own ways go through coordinates and take several times as long."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Int64s = npt.NDArray[np.int64]


def stacked(
    parts: Sequence[tuple[Int64s, npt.NDArray[Any], npt.NDArray[np.float32]]], rows: int, columns: int
) -> sparse.csr_array:
    """Put entries (row, column, value) of several parts into one matrix; within a row they keep their order.

    Fast where each part is in row order.
    """
    row, column, value = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    indptr = np.zeros(rows + 1, np.int32)
    np.cumsum(np.bincount(row, minlength=rows), out=indptr[1:])
    return sparse.csr_array((value[order], column[order].astype(np.int32), indptr), shape=(rows, columns))


def beside(left: sparse.csr_array, right: sparse.csr_array) -> sparse.csr_array:
    """Put two matrices side by side."""
    left_at = np.arange(left.nnz) + np.repeat(right.indptr[:-1], np.diff(left.indptr))
    right_at = np.arange(right.nnz) + np.repeat(left.indptr[1:], np.diff(right.indptr))
    indices, data = np.empty(left.nnz + right.nnz, np.int32), np.empty(left.nnz + right.nnz, np.float32)
    indices[left_at], data[left_at] = left.indices, left.data
    indices[right_at], data[right_at] = right.indices + left.shape[1], right.data
    return sparse.csr_array(
        (data, indices, (left.indptr + right.indptr).astype(np.int32)),
        shape=(left.shape[0], left.shape[1] + right.shape[1]),
    )


def row_of(matrix: sparse.csr_array) -> Int64s:
    """Name the row of every entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def ones_like(matrix: sparse.csr_array, columns: int) -> sparse.csr_array:
    """Mark the entries of a matrix in one with more columns."""
    return sparse.csr_array(
        (np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns)
    )


def nothing_in(rows: int, columns: int) -> sparse.csr_array:
    """Make a matrix without entries."""
    indptr = np.zeros(rows + 1, np.int32)
    return sparse.csr_array((np.empty(0, np.float32), np.empty(0, np.int32), indptr), shape=(rows, columns))
