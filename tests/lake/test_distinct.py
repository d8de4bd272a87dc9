"""Different values equal those of a set, in order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.lake.distinct import distinct


@given(st.lists(st.integers(-5, 5)))
def test_different_values_are_those_of_a_set_in_order(values):
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))
