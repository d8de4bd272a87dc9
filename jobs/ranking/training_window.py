"""How far back training looks: as few days as hold enough records."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.list_columns import flat
from jobs.ranking.interactions import DAY
from schemas.errors import EmptyPartitionError
from schemas.training import TrainingSettings


def choose_window(per_day: npt.NDArray[np.int64], training: TrainingSettings) -> tuple[int, int]:
    """Choose the narrowest window, from `window_days` on, that holds `min_records`; return its days and records.

    Shapes: per_day counts the records of each day, the newest first, `max_window_days` of them.
    Raises: EmptyPartitionError if the widest holds fewer, unless the campaign allows it.
    """
    total = np.cumsum(per_day)
    enough = np.flatnonzero(total >= training.min_records)
    if len(enough):
        days = max(int(enough[0]) + 1, training.window_days)
        return days, int(total[days - 1])
    if not training.allow_less or total[-1] == 0:
        raise EmptyPartitionError(
            f"the widest window of {training.max_window_days} days holds {total[-1]:,} training records, expected "
            f"{training.min_records:,}; export more history, or lower training.min_records or set training.allow_less "
            "in the campaign. The correlations of the last good day stay"
        )
    return training.max_window_days, int(total[-1])


def count_days(profiles: pa.Table, training: TrainingSettings, until: int) -> npt.NDArray[np.int64]:
    """Count the records of interest in some profiles by their age in whole days.

    Shapes: (max_window_days,), the newest day first. Units: until in microseconds, itself excluded.
    """
    is_interest = np.array(training.weights_by_type()) > 0
    age_days = (until - 1 - flat(profiles["last_at"])[is_interest[flat(profiles["event_type"])]]) // DAY
    inside = age_days[(age_days >= 0) & (age_days < training.max_window_days)]
    return np.bincount(inside, minlength=training.max_window_days)
