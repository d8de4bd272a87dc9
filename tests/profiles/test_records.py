"""Records merged and put into order by compiled loops, against the definition in plain Python; planted bugs in them."""

import numpy as np
import pytest

from jobs.profiles import records as module
from jobs.profiles.records import COUNTED, VIEW, Records, merge, newest_first

TYPES = len(COUNTED)
MANY = 500  # of one user: more than are sorted by insertion


def some_records(seed, users=6, size=90):
    """Few items and instants, so that most records meet another one; user 3 has many, user 4 none."""
    rng = np.random.default_rng(seed)
    user = rng.choice([0, 1, 2, 5], size)
    user = rng.permutation(np.concatenate((user, np.full(MANY, 3)))) if seed % 2 else user
    draw = [rng.integers(0, most, len(user)) for most in (5, TYPES, 6, 3)]
    return Records(user.astype(np.int64), draw[0], draw[1], draw[2], draw[3] + 1)


def rows_of(records):
    return list(zip(*(column.tolist() for column in vars(records).values()), strict=True))


def merged_by_definition(records):
    counts = {}
    for user, item, kind, at, count in rows_of(records):
        counts[user, item, kind, at] = counts.get((user, item, kind, at), 0) + count
    last = {}
    for user, item, kind, at in counts:
        last[user, item, kind] = max(at, last.get((user, item, kind), at))
    return [(*key, count) for key, count in sorted(counts.items()) if COUNTED[key[2]] or last[key[:3]] == key[3]]


def newest_by_definition(rows, cap, state_cap):
    held, kept = {}, []
    for row in sorted(rows, key=lambda row: (row[0], -row[3], row[1], row[2])):
        place = held[row[0], row[2] == VIEW] = held.get((row[0], row[2] == VIEW), 0) + 1
        if place <= (cap if row[2] == VIEW else state_cap):
            kept.append(row)
    return kept


def differences(seeds=range(20)):
    """The seeds for which the loops are not what the definition gives."""
    different = []
    for seed in seeds:
        records = some_records(seed)
        merged = merge(records)
        newest = newest_first(merged, cap=2, state_cap=5)
        right = rows_of(merged) == merged_by_definition(records)
        if not right or rows_of(newest) != newest_by_definition(rows_of(merged), 2, 5):
            different.append(seed)
    return different


def test_records_are_merged_and_ordered_as_defined():
    sizes = [len(newest_first(merge(some_records(seed)), cap=2, state_cap=5).user) for seed in (0, 1)]
    assert min(sizes) > 20
    assert differences() == []


def test_nothing_is_merged_into_nothing():
    none = Records(*(np.empty(0, np.int64) for _ in range(5)))
    assert rows_of(newest_first(merge(none), cap=1, state_cap=1)) == []


def counts_of_the_last_alone(start, what, at, count, is_counted, kept, real=module._merge.py_func):
    before = count.copy()
    size = real(start, what, at, count, is_counted, kept)
    count[:] = before
    return size


def all_counted(start, what, at, count, is_counted, kept, real=module._merge.py_func):
    return real(start, what, at, count, np.ones_like(is_counted), kept)


def one_cap_for_both(start, at, is_view, view_cap, state_cap, kept, real=module._newest_first.py_func):
    return real(start, at, np.ones_like(is_view), view_cap, state_cap, kept)


def oldest_first(start, at, is_view, view_cap, state_cap, kept, real=module._newest_first.py_func):
    return real(start, -at, is_view, view_cap, state_cap, kept)


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("_merge", counts_of_the_last_alone), ("_merge", all_counted),
        ("_newest_first", one_cap_for_both), ("_newest_first", oldest_first),
    ],
)  # fmt: skip
def test_planted_bugs_are_caught(name, planted, monkeypatch):
    monkeypatch.setattr(module, name, planted)
    assert differences(range(2))
