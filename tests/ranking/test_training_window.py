"""The training window: as narrow as it may be, as wide as it must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ranking.training_window import choose_window
from schemas.errors import EmptyPartitionError
from schemas.training import TrainingSettings


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
    st.integers(1, 400),
    st.integers(1, 60),
    st.booleans(),
)
def test_the_window_is_the_narrowest_that_holds_enough(per_day, min_records, window_days, allow_less):
    widest = len(per_day)
    training = TrainingSettings(
        min_records=min_records, window_days=min(window_days, widest), max_window_days=widest, allow_less=allow_less
    )
    total = sum(per_day)
    if total < min_records and (not allow_less or total == 0):
        with pytest.raises(EmptyPartitionError, match="export more history"):
            choose_window(np.array(per_day), training)
        return
    days, records = choose_window(np.array(per_day), training)
    assert records == sum(per_day[:days])
    if total < min_records:
        assert days == widest
        return
    assert records >= min_records
    assert days >= training.window_days
    if days > training.window_days:
        assert sum(per_day[: days - 1]) < min_records


def test_too_little_says_how_much_there_is_and_what_to_do():
    with pytest.raises(
        EmptyPartitionError, match=r"366 days holds 1,200 training records, expected 5,000,000"
    ) as error:
        choose_window(np.array([1_200] + [0] * 365), TrainingSettings())
    assert "training.allow_less" in str(error.value)
