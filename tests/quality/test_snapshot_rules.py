"""The rules of whole snapshots against a plain-Python oracle, over batches of any size."""

import datetime as dt
from collections import Counter, defaultdict

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.lake.manifest import Window
from jobs.quality.row_rules import POSITION, check_rows
from jobs.quality.snapshot_rules import Snapshot
from schemas.tables import PROPERTIES, USERS

WINDOW = Window.of_days(dt.date(2026, 1, 1), dt.date(2026, 1, 1))
Row = tuple[str, str | None, bool, str]

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", "4", "5", "6", "1 "]),
        st.sampled_from([None, "a@example.com", "A@example.com ", "b@example.com", "c@example.com", "bad"]),
        st.booleans(),
        st.sampled_from(["x", "y"]),
    ),
    max_size=12,
)


def settled(
    rows: list[Row], batch_rows: int
) -> tuple[list[dict[str, object]], list[tuple[int, str]], list[tuple[int, str]]]:
    good, dropped, addresses = [], [], []
    with Snapshot(USERS) as snapshot:
        for start in range(0, len(rows), batch_rows):
            part = rows[start : start + batch_rows]
            batch = pa.RecordBatch.from_pydict(
                {
                    "user_id": [row[0] for row in part],
                    "email": pa.array([row[1] for row in part], pa.string()),
                    "is_subscribed": [row[2] for row in part],
                    "locale": pa.nulls(len(part)),
                    "properties": pa.array([[("p", row[3])] for row in part], PROPERTIES),
                    POSITION.name: pa.array(range(start + 1, start + len(part) + 1), pa.int64()),
                }
            )
            snapshot.add(check_rows(USERS, batch, WINDOW, holds_all_days=True))
        for result in snapshot.settle():
            good += result.good.to_pylist()
            dropped += [(row["source_position"], row["reason"]) for row in result.quarantined.to_pylist()]
            addresses += [(row["source_position"], row["reason"]) for row in result.addresses.to_pylist()]
    return good, dropped, addresses


@settings(max_examples=120, deadline=None)
@given(rows=ROWS, batch_rows=st.integers(1, 5))
def test_duplicates_and_shared_addresses_are_those_of_the_oracle(rows, batch_rows):
    canonical = [(user, mail and mail.strip().lower(), subscribed, extra) for user, mail, subscribed, extra in rows]
    usable = [mail if mail and "@" in mail else None for _, mail, _, _ in canonical]
    # What rows are compared by is what would be exported: an unusable address is no address.
    contents = [(user, mail, *rest) for (user, _, *rest), mail in zip(canonical, usable, strict=True)]
    by_user = defaultdict(list)
    owners = defaultdict(set)
    for place, content in enumerate(contents):
        by_user[content[0]].append(place)
        if content[1]:
            owners[content[1]].add(content[0])
    used = {places[0] for places in by_user.values() if len({contents[place] for place in places}) == 1}

    good, dropped, addresses = settled(rows, batch_rows)
    assert [row["user_id"] for row in good] == [rows[place][0] for place in sorted(used)]
    assert dropped == [(place + 1, "duplicate_user") for place in range(len(rows)) if place not in used]
    expected = []
    for place in sorted(used):
        if canonical[place][1] == "bad":
            expected.append((place + 1, "bad_email"))
        elif usable[place] and len(owners[usable[place]]) > 1:
            expected.append((place + 1, "email_collision"))
    assert addresses == expected
    kept = {row["user_id"]: row["email"] for row in good}
    assert kept == {
        rows[place][0]: usable[place] if usable[place] and len(owners[usable[place]]) == 1 else None for place in used
    }
    # No address belongs to two users any more.
    assert max(Counter(filter(None, kept.values())).values(), default=0) <= 1


def test_an_empty_snapshot_settles_to_nothing():
    assert settled([], 1) == ([], [], [])
