"""The keyed hash: SipHash-2-4 as its authors say, and the values of pandas, with which lakes and ledgers were begun."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pandas.util import hash_array

from jobs.lake.buckets import keyed_hash
from jobs.lake.siphash import siphash

KEY = "ryml user bucket"


def test_the_hash_is_its_authors():
    """The example of the paper's appendix A: 15 bytes, 0 to 14, under the key of 0 to 15."""
    texts = pa.array([bytes(range(15)).decode()])
    assert siphash(texts, bytes(range(16))).tolist() == [0xA129CA6149BE45E5]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(max_size=40), max_size=30),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=16),
    st.integers(0, 5),
)
@example(["a" * size for size in range(34)], KEY, 3)
@example(["x" * 255, "x" * 256, "x" * 5_000, ""], KEY, 0)
def test_the_values_are_those_of_pandas(texts, key, skipped):
    """Of whole arrays, of parts of one, and of several."""
    column, rest = pa.array(texts, pa.string()), texts[skipped:]
    expected = hash_array(np.array(rest, object), hash_key=key, categorize=False) if rest else np.empty(0, np.uint64)
    assert keyed_hash(column.slice(skipped), key).tolist() == expected.tolist()
    parts = pa.chunked_array([column.slice(skipped, 2), column.slice(skipped + 2)], pa.string())
    assert keyed_hash(parts, key).tolist() == expected.tolist()


def test_no_texts_have_no_hashes():
    assert keyed_hash(pa.chunked_array([], pa.string()), KEY).tolist() == []
    assert keyed_hash(pa.array([None], pa.string()), KEY).tolist() == keyed_hash(pa.array(["None"]), KEY).tolist()


def test_a_key_has_sixteen_bytes():
    with pytest.raises(ValueError, match="15 bytes"):
        siphash(pa.array(["a"]), b"x" * 15)
