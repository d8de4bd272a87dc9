"""Plan and payload against plain Python: one action per user, every slot written, nobody's items under another name."""

import base64
import datetime as dt
import itertools
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.delivery import payload
from jobs.delivery.audience import is_held_out, variants
from jobs.delivery.content_digest import content_digests, item_digests
from jobs.delivery.payload import cut_bodies, item_values, render_contacts, slot_fragments, uid_texts
from jobs.delivery.people_book import Erased
from jobs.delivery.plan import plan_bucket
from jobs.delivery.ramp import last_end, ramp_offsets
from jobs.delivery.sheet import Sheet
from jobs.lake.buckets import bucket_of, keyed_hash
from jobs.reconcile_push import mirror_bucket
from schemas.audience import AudienceSettings, ExperimentSettings, SegmentSettings, UserCondition
from schemas.campaign import PushSettings
from schemas.mail_fields import SLOT_PARTS, all_fields, slot_field
from schemas.tables import CATALOG, CHUNKS, MIRROR, PLAN_REASONS, RECEIPTS, RECOMMENDATIONS, USERS

KEY = "0123456789abcdef"
USER_IDS = ["7", "007", "ann", "Ann", "ann ", "ü", "zoë"]

user_list = st.dictionaries(st.sampled_from(USER_IDS), st.lists(st.integers(0, 9), max_size=3, unique=True))
people = st.dictionaries(
    st.sampled_from(USER_IDS),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)  # has an address, subscribed, suppressed, of the locale, in the segment, erased by the address
AUDIENCES = [
    AudienceSettings(),
    AudienceSettings(
        subscribed=False,
        locales=("de",),
        segments=SegmentSettings(all=(UserCondition(property="tier", any_of=("gold",)),)),
    ),
]
EXPERIMENTS = [ExperimentSettings(), ExperimentSettings(holdout_share=0.5, variants={"one": 0.5, "two": 0.5})]


def lists_table(lists, schema, extra):
    rows = [{"user_id": user, "item": items, **extra(items)} for user, items in sorted(lists.items(), key=by_bytes)]
    return pa.Table.from_pylist(rows, schema=schema).select(["user_id", "item"])


def mirror_table(held):
    rows = [
        {"user_id": user, "item": items, "send_date": dt.date(2026, 1, 1), "content": len(user) if items else None}
        for user, items in sorted(held.items(), key=by_bytes)
    ]
    return pa.Table.from_pylist(rows, schema=MIRROR.schema)


def by_bytes(pair):
    return pair[0].encode()


def address(user):
    return f"{user.encode().hex()}@example.com"


def hashes(texts):
    return np.array([int(keyed_hash(pa.array([text]), KEY)[0]) for text in texts], np.uint64).view(np.int64)


@settings(max_examples=200, deadline=None)
@given(
    user_list, people, user_list, st.integers(1, 3), st.sampled_from(AUDIENCES), st.sampled_from(EXPERIMENTS),
    st.sets(st.sampled_from(USER_IDS), max_size=1),
)  # fmt: skip
def test_every_user_has_one_action_with_its_reason(recommended, users, held, chunk_users, audience, experiment, by_id):
    table = plan_bucket(
        lists_table(recommended, RECOMMENDATIONS.schema, lambda items: {"score": [1.0] * len(items), "outcome": "x"}),
        pa.Table.from_pylist(
            [
                {
                    "user_id": user,
                    "email": address(user) if has else None,
                    "is_subscribed": subscribed,
                    "locale": "de-AT" if local else "en",
                    "properties": [("tier", "gold")] if inside else None,
                }
                for user, (has, subscribed, _, local, inside, _) in sorted(users.items(), key=by_bytes)
            ],
            schema=USERS.schema,
        ),
        mirror_table(held),
        np.array(
            [
                int(keyed_hash(pa.array([address(user)]), KEY)[0])
                for user, (has, _, suppressed, _, _, _) in users.items()
                if has and suppressed
            ],
            np.uint64,
        ).view(np.int64),
        erased=Erased(
            hashes([address(user) for user, person in users.items() if person[0] and person[5]]), hashes(by_id), KEY
        ),
        address_key=KEY,
        chunk_users=chunk_users,
        audience=audience,
        experiment=experiment,
    )
    assert table.schema.equals(CHUNKS.schema)
    rows = table.to_pylist()
    everybody = set(recommended) | set(users) | set(held)
    assert [row["user_id"] for row in rows] == sorted(everybody, key=str.encode)
    pushed = 0
    for row in rows:
        user = row["user_id"]
        is_known = row["action"] == "upsert" and held.get(user)
        assert row["held"] == (len(user) if is_known else None)
        has_address, subscribed, suppressed, local, inside, erased = users.get(user, (False,) * 6)
        asks = audience is AUDIENCES[1]
        its_address = pa.array([address(user)])
        if user in by_id or (has_address and erased):
            expected = ("withheld", "erased", [])
        elif user not in users:
            expected = ("withheld", "not_in_users", [])
        elif not has_address:
            expected = ("withheld", "no_address", [])
        elif not subscribed and not asks:
            expected = ("withheld", "unsubscribed", [])
        elif suppressed:
            expected = ("withheld", "suppressed", [])
        elif asks and not local:
            expected = ("withheld", "other_locale", [])
        elif asks and not inside:
            expected = ("withheld", "not_in_segments", [])
        elif recommended.get(user) and is_held_out(its_address, experiment)[0]:
            expected = ("withheld", "holdout", recommended[user])
        elif recommended.get(user):
            expected = ("upsert", "has_recommendations", recommended[user])
        elif held.get(user):
            expected = ("clear", "nothing_any_more", [])
        else:
            expected = ("unchanged", "held_nothing", [])
        assert (row["action"], row["reason"], row["item"]) == expected
        assert row["variant"] == (variants(its_address, experiment)[0] if row["action"] == "upsert" else "")
        assert row["reason"] in PLAN_REASONS
        if row["action"] in ("upsert", "clear"):
            assert row["part"] == pushed // chunk_users
            pushed += 1
        else:
            assert row["part"] == -1


TITLES = ["Mug", 'The "best" mug', "{{email}}", "{{{x}}}", "Кофе ☕", "<img onerror=x>", "a\x00b\nc", "x" * 5000, "\\"]


def catalog_table():
    rows = [
        {
            "item_id": str(n), "title": title, "url": f"https://shop.example.com/{n}", "image_url": f"https://i/{n}",
            "price": Decimal("1234.5") + n, "currency": "EUR", "stock": 1,
        }
        for n, title in enumerate(TITLES)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=CATALOG.schema)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, len(TITLES) - 1), max_size=3, unique=True), min_size=1, max_size=20),
    st.integers(1, 8),
)
def test_bodies_hold_every_contact_once_with_every_slot(lists, max_contacts):
    slots, catalog = 3, catalog_table()
    ids = {name: f"e{number}_T" for number, name in enumerate(all_fields(slots), start=1)}
    emails = pa.array([f'u{n}"\\@example.com' for n in range(len(lists))])
    uids = np.arange(len(lists), dtype=np.uint64) * np.uint64(2**60 + 1)
    contacts = render_contacts(
        emails=emails,
        uids=uids,
        slot_rows=[np.array([items[s] if s < len(items) else -1 for items in lists]) for s in range(slots)],
        counts=np.array([len(items) for items in lists]),
        contents=uids,
        fragments=slot_fragments(item_values(catalog), [np.arange(len(catalog))] * slots, ids),
        field_ids=ids,
        run="2026-11-02",
    )
    original = payload.MAX_CONTACTS
    payload.MAX_CONTACTS = max_contacts
    try:
        bodies = list(cut_bodies(contacts, ["list-1"]))
    finally:
        payload.MAX_CONTACTS = original
    assert [body.start for body in bodies[1:]] == [body.stop for body in bodies[:-1]]
    values, sent = item_values(catalog), []
    for body in bodies:
        parsed = json.loads(body.content)
        assert parsed["list_ids"] == ["list-1"]
        assert len(parsed["contacts"]) == body.stop - body.start <= max_contacts
        assert body.size == len(body.content)
        sent += parsed["contacts"]
    assert len(sent) == len(lists)
    for number, (contact, items) in enumerate(zip(sent, lists, strict=True)):
        assert contact["email"] == f'u{number}"\\@example.com'
        fields = contact["custom_fields"]
        assert set(fields) == set(ids.values())
        assert fields[ids["ryml_count"]] == str(len(items))
        assert fields[ids["ryml_run"]] == "2026-11-02"
        assert fields[ids["ryml_uid"]] == f"{int(uids[number]):016x}"
        digest = base64.urlsafe_b64encode(int(uids[number]).to_bytes(8, "big")[:6]).decode()
        assert fields[ids["ryml_content"]] == fields[ids["ryml_expected"]] == digest
        for slot in range(slots):
            for part in SLOT_PARTS:
                got = fields[ids[slot_field(slot + 1, part)]]
                want = json.loads(values[part][items[slot]].as_py()) if slot < len(items) else ""
                assert got == want
                assert "{{" not in got
                assert "}}" not in got
                assert len(got) <= 1000


def test_bodies_stay_under_the_byte_limit(monkeypatch):
    monkeypatch.setattr(payload, "MAX_BYTES", 2_000)
    contacts = pa.array([json.dumps({"email": "x" * n}) for n in range(1, 400)])
    bodies = list(cut_bodies(contacts, []))
    assert len(bodies) > 20
    assert max(body.size for body in bodies) <= 2_000
    # A body that has room for the next contact was cut too early.
    for body, following in itertools.pairwise(bodies):
        assert body.size + 1 + len(contacts[following.start].as_py()) > 2_000
    with pytest.raises(ValueError, match="one contact takes more"):
        list(cut_bodies(pa.array(["x" * 3_000]), []))


def test_where_a_request_ends_does_not_depend_on_the_guess(monkeypatch):
    """A resumed push begins with another guess of a row's size than the one before had: its bytes are the same."""
    monkeypatch.setattr(payload, "MAX_BYTES", 2_000)
    rows = pa.array([json.dumps({"email": "x" * (n % 37)}) for n in range(900)])
    nobody = pa.nulls(len(rows), pa.string())
    sheet = Sheet(
        0,
        nobody,
        nobody,
        nobody,
        nobody,
        nobody,
        np.zeros(len(rows), np.int8),
        ((),),
        lambda positions: rows.take(pa.array(positions)),
    )
    for first in (0, 11, 500, 880):
        positions = np.arange(first, len(rows))
        bodies = {sheet.first_body(positions, guess).sha256 for guess in (1, 10, 25, 29, 30, 31, 32, 33, 40, 2_000)}
        assert len(bodies) == 1


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=12), st.sampled_from(TITLES)), max_size=6))
def test_texts_in_batches_are_what_they_are_one_by_one(texts):
    assert payload._json_texts(pa.array(texts, pa.string())).to_pylist() == [payload._json_text(t) for t in texts]


def test_prices_read_like_prices():
    assert json.loads(item_values(catalog_table())["price"][0].as_py()) == "€1,234.50"


def test_the_bucket_hash_is_what_it_was():
    """Pinned: another value would send every user's history to another bucket. SipHash-2-4 of pandas 2.3."""
    ids = pa.array(["", "a", "0000042"])
    assert keyed_hash(ids, "ryml user bucket").tolist() == [
        6502111375295436350,
        8210647734663611790,
        16309640397390716801,
    ]
    assert bucket_of(ids, 64).tolist() == [62, 14, 1]
    assert uid_texts(np.array([0, 255, 2**64 - 1], np.uint64)).to_pylist() == ["0" * 16, "0" * 14 + "ff", "f" * 16]


rates = st.tuples(st.floats(0.5, 500), st.floats(0.5, 500)).map(sorted)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 5_000), min_size=2, max_size=60), st.integers(0, 90), rates, st.booleans())
def test_a_ramp_rises_linearly_from_its_start_to_its_full_rate(users, minutes, rates, is_flat):
    start, full = (rates[1], rates[1]) if is_flat else rates
    offsets = ramp_offsets(users, start=start, full=full, ramp_minutes=minutes)
    before, seconds = np.cumsum([0, *users[:-1]]), minutes * 60
    assert len(offsets) == len(users)
    assert offsets[0] == 0
    if minutes == 0:
        assert set(offsets) == {0.0}
        return
    # By construction: so many users as the area under the line from `start` to `full` have had their time.
    at = np.array(offsets)
    area = start * at + (full - start) / seconds * at**2 / 2
    whole = (start + full) / 2 * seconds
    assert area == pytest.approx(np.minimum(before, whole), rel=1e-6)
    assert (at <= seconds).all()
    assert (at[before >= whole] == seconds).all()  # after the ramp the limit alone sets the pace


def test_a_ramp_on_paper():
    """0 to 60 s from 1 to 3 users a second: 1·t + t²/60 is 40 at 27.446 s, 120 by its end."""
    assert ramp_offsets([40, 80, 500, 9], start=1, full=3, ramp_minutes=1) == pytest.approx(
        [0, 27.446, 60, 60], abs=1e-3
    )
    assert ramp_offsets([30, 30, 60, 9], start=2, full=2, ramp_minutes=1) == [0, 15, 30, 60]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=30), st.floats(1, 500), st.floats(1, 500))
def test_the_forecast_follows_the_ramp_and_then_the_limit(users, full, limit):
    offsets = ramp_offsets(users, start=full / 2, full=full, ramp_minutes=10)
    end = last_end(users, offsets, users_per_second=limit)
    # Whoever waits, waits for a place on the ramp; from then on nothing stands still.
    expected = max(offset + sum(users[n:]) / limit for n, offset in enumerate(offsets))
    assert end == pytest.approx(expected)
    assert last_end(users, [0.0] * len(users), users_per_second=limit) == pytest.approx(sum(users) / limit)


def test_a_campaign_says_what_its_ramp_rises_from_and_to():
    assert PushSettings().ramp_users_per_second(6_000) == (300, 6_000)
    assert PushSettings(full_users_per_second=100).ramp_users_per_second(6_000) == (5, 100)
    assert PushSettings(start_users_per_second=9, full_users_per_second=9).ramp_users_per_second(6_000) == (9, 9)
    assert PushSettings(start_users_per_second=9).ramp_users_per_second(6_000) == (9, 6_000)
    assert PushSettings(start_users_per_second=9).ramp_users_per_second(3) == (9, 9)  # the limit paces it all the same
    with pytest.raises(ValueError, match="a ramp rises"):
        PushSettings(start_users_per_second=2, full_users_per_second=1)


def test_the_mirror_takes_what_was_confirmed_and_forgets_what_is_unsure():
    old, today = dt.date(2026, 11, 1), dt.date(2026, 11, 2)
    held = pa.Table.from_pylist(
        [{"user_id": user, "item": [1, 2], "send_date": old, "content": 7} for user in ("a", "b", "c", "e")],
        schema=MIRROR.schema,
    )
    receipts = pa.Table.from_pylist(
        [
            {"user_id": "d", "chunk": 0, "item": [5], "outcome": "delivered", "content": 8},
            {"user_id": "b", "chunk": 0, "item": [], "outcome": "cleared", "content": 9},
            {"user_id": "c", "chunk": 0, "item": [9], "outcome": "quarantined", "content": 10},
        ],
        schema=RECEIPTS.schema,
    )
    pushed = pa.chunked_array([["b", "c", "d", "e"]])  # e's request never got an answer
    assert mirror_bucket(held, receipts, pushed, today).to_pylist() == [
        {"user_id": "a", "item": [1, 2], "send_date": old, "content": 7},
        {"user_id": "b", "item": [], "send_date": today, "content": 9},
        {"user_id": "c", "item": [1, 2], "send_date": old, "content": None},
        {"user_id": "d", "item": [5], "send_date": today, "content": 8},
        {"user_id": "e", "item": [1, 2], "send_date": old, "content": None},
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 4), min_size=3, max_size=3), min_size=1, max_size=8), st.integers(0, 3))
def test_contents_differ_where_anything_that_is_shown_differs(lists, uid):
    rows = np.array([[uid, *items] for items in lists])
    texts = [pa.array([f"{part} {n}" for n in range(5)]) for part in SLOT_PARTS]
    digests = content_digests(rows[:, 0].astype(np.uint64), [rows[:, 1 + s] for s in range(3)], item_digests(texts))
    for one, other in itertools.combinations(range(len(lists)), 2):
        assert (digests[one] == digests[other]) == (lists[one] == lists[other])
    changed = content_digests(
        rows[:, 0].astype(np.uint64),
        [rows[:, 1 + s] for s in range(3)],
        item_digests([*texts[:3], pa.array(["new price"] * 5)]),
    )
    for before, after, items in zip(digests, changed, lists, strict=True):
        assert (before == after) == (set(items) == {-1})
    others = content_digests(
        rows[:, 0].astype(np.uint64) + np.uint64(1), [rows[:, 1 + s] for s in range(3)], item_digests(texts)
    )
    assert (digests != others).all()
