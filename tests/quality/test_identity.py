# ruff: noqa: RUF001  # letters that look like others are what this is about
"""Who is who: ids stay what they are to the byte, and no two people share an address."""

import datetime as dt
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.lake.buckets import bucket_of
from jobs.lake.manifest import Window
from jobs.quality.email_addresses import canonical, collision_key, is_address
from jobs.quality.row_rules import MAX_ID_BYTES, POSITION, check_rows
from jobs.quality.snapshot_rules import Snapshot
from schemas.tables import EVENTS, USERS

WINDOW = Window.of_days(dt.date(2026, 1, 1), dt.date(2026, 1, 1))
IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60), min_size=1, max_size=40)
ALIKE = [
    "007", "07", "7", "7 ", " 7", "7.0", "7e0", "a", "A", "ä", "a\u0308", "Ä", "😀", "😀\ufe0f", "\x00", "a\x00",
    "a\x00b",
    "ﬁ", "fi", "ı", "i", "İ", "ß", "ss", "null", "\t", "\r\n", "\ufeff", "\u200b", "nan", "True",
]  # fmt: skip


def users(ids: list[str], emails: list[str | None] | None = None) -> pa.RecordBatch:
    count = len(ids)
    return pa.RecordBatch.from_pydict(
        {
            "user_id": ids,
            "email": pa.array(emails or [None] * count, pa.string()),
            "is_subscribed": [True] * count,
            "locale": pa.nulls(count),
            "properties": pa.nulls(count, USERS.schema.field("properties").type),
            POSITION.name: pa.array(range(1, count + 1), pa.int64()),
        }
    )


def settled(batch: pa.RecordBatch) -> tuple[pa.Table, list[str]]:
    with Snapshot(USERS) as snapshot:
        snapshot.add(check_rows(USERS, batch, WINDOW, holds_all_days=True))
        parts = list(snapshot.settle())
    return (
        pa.concat_tables([part.good for part in parts]),
        [reason for part in parts for reason in part.addresses.column("reason").to_pylist()],
    )


@settings(max_examples=200, deadline=None)
@example(ids=ALIKE)
@given(ids=IDS)
def test_ids_stay_what_they_are_to_the_byte(ids):
    assert all(len(user_id.encode()) <= MAX_ID_BYTES for user_id in ids)
    distinct = list(dict.fromkeys(ids))
    good, _ = settled(users(distinct))
    # Users that are not the same to the byte are not the same: none is lost, joined or set aside.
    assert good.column("user_id").to_pylist() == distinct
    for kind in (pa.string(), pa.binary(), pa.large_string(), pa.string_view()):
        ids_column = pa.array([user_id.encode() if kind == pa.binary() else user_id for user_id in distinct], kind)
        batch = pa.RecordBatch.from_pydict(
            {
                "user_id": ids_column,
                "item_id": ids_column,
                "event_type": ["view"] * len(distinct),
                "occurred_at": ["2026-01-01"] * len(distinct),
                "quantity": [1] * len(distinct),
                "price": pa.nulls(len(distinct)),
                POSITION.name: pa.array(range(1, len(distinct) + 1), pa.int64()),
            }
        )
        events = check_rows(EVENTS, batch, WINDOW, holds_all_days=True).good
        assert events.column("user_id").to_pylist() == events.column("item_id").to_pylist() == distinct


@settings(max_examples=100, deadline=None)
@example(ids=ALIKE, buckets=64)
@given(ids=IDS, buckets=st.integers(1, 200))
def test_a_user_is_always_in_the_same_bucket(ids, buckets):
    alone = [int(bucket_of(pa.array([user_id]), buckets)[0]) for user_id in ids]
    assert bucket_of(pa.array(ids), buckets).tolist() == alone
    assert bucket_of(pa.array(ids[::-1]), buckets).tolist() == alone[::-1]
    assert all(0 <= bucket < buckets for bucket in alone)


# Addresses that one system or another takes for the same: each with the address that mail can go to.
TWINS = {
    "the Kelvin sign": ("\u212aelvin@example.com", "kelvin@example.com"),
    "the dotless i": ("m\u0131ke@example.com", "mike@example.com"),
    "the capital I with a dot": ("M\u0130KE@example.com", "mike@example.com"),
    "the long s": ("je\u017fse@example.com", "jesse@example.com"),
    "the sharp s": ("gro\u00df@example.com", "gross@example.com"),
    "a ligature": ("\ufb01ona@example.com", "fiona@example.com"),
    "letters of full width": ("\uff41nn@example.com", "ann@example.com"),
}
DOMAINS = {
    "a domain and its ASCII form": ("ann@b\u00fccher.example.com", "ann@xn--bcher-kva.example.com"),
    "a full stop of full width": ("ann@example\uff0ecom", "ann@example.com"),
}


def test_there_are_seven_pairs():
    assert len(TWINS) == 7


@pytest.mark.parametrize("name", [*TWINS, *DOMAINS])
@pytest.mark.parametrize("order", [1, -1])
def test_unicode_collision_group_quarantined(name, order):
    pair = list((TWINS | DOMAINS)[name])[::order]
    emails = [*pair, "other@example.com", f" {pair[1].upper()} " if pair[1].isascii() else pair[1]]
    good, reasons = settled(users(["1", "2", "3", "4"], emails))
    # Nobody of the group gets mail that may be another's; everybody stays, and the others keep their address.
    assert good.column("user_id").to_pylist() == ["1", "2", "3", "4"]
    assert good.column("email").to_pylist() == [None, None, "other@example.com", None]
    counted = Counter(reasons)
    assert counted == {"bad_email": sum(not email.isascii() for email in emails),
                       "email_collision": sum(email.isascii() for email in emails) - 1}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(emails=st.lists(st.none() | st.from_regex(r"[aAkKiıİſsß\u212aﬁf.]{1,4}@(example|exämple)\.com", fullmatch=True),
                       min_size=1, max_size=12))  # fmt: skip
def test_no_two_users_keep_addresses_that_fold_to_one(emails):
    good, _ = settled(users([str(n) for n in range(len(emails))], emails))
    assert good.num_rows == len(emails)
    kept = [email for email in good.column("email").to_pylist() if email]
    assert len(set(kept)) == len(kept)
    for email in kept:
        others = [other for other in emails if other is not None and other.strip().lower() != email]
        assert email not in {other.upper().casefold().replace("i\u0307", "i") for other in others}
        assert sum(other is not None and other.strip().lower() == email for other in emails) == 1


@given(st.lists(st.none() | st.text(max_size=20) | st.emails(), max_size=10))
def test_keys_are_the_addresses_themselves_where_mail_can_go(emails):
    forms = canonical(pa.array(emails, pa.string()))
    bad = forms.is_valid().to_numpy(zero_copy_only=False) & ~is_address(forms)
    keys = collision_key(forms, bad).to_pylist()
    for form, key, usable in zip(forms.to_pylist(), keys, is_address(forms), strict=True):
        if usable:
            assert key == form
        elif form is None or form.isascii():
            assert key is None
