"""Files of contacts: whatever stands in titles, ids and addresses, they say what the JSON of the same rows says."""

import csv
import gzip
import io
import json
import zlib
from contextlib import closing
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rehearsal_fixture import held, serve

from jobs.delivery import csv_file
from jobs.delivery.csv_file import write_file
from jobs.delivery.csv_rows import (
    ADDRESS,
    STAMP_FIELDS,
    content_fields,
    csv_cells,
    csv_contacts,
    csv_fragments,
    csv_header,
    csv_stamps,
)
from jobs.delivery.link_tokens import LinkTokens
from jobs.delivery.payload import (
    cut_bodies,
    item_values,
    linked_urls,
    render_contacts,
    render_stamps,
    slot_fragments,
)
from jobs.delivery.sendgrid_client import SendGridProvider
from schemas.mail_fields import all_fields
from schemas.tables import CATALOG

SLOTS, RUN = 3, "2026-11-02"
NASTY = [
    "", "-", "a,b", 'the "best", mug', '"', '""', "'", "=1+1", "+49 30", "-5 %", "@here", "\\", '\\"', "Кофе ☕",
    "two\nlines", "a\r\nb", "\ttab", "{{email}}", "{{{x}}}", "x" * 1_200, "é" * 1_000, " space ", "\x00", "\u2028",
    "👩‍👩‍👧", "e1_T", ";", "NULL", "007", "1e5",
]  # fmt: skip
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=8), st.sampled_from(NASTY).map(lambda text: text * 2))
addresses = st.lists(
    st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~é-]{1,8}(\.[A-Z0-9=+-]{1,4})?", fullmatch=True),
    min_size=1, max_size=8, unique_by=str.lower,
)  # fmt: skip


def catalog_of(rows):
    return pa.Table.from_pylist(
        [
            {"item_id": f"{n}{title}"[:50], "title": title, "url": f"https://shop.example.com/{n}{url}#{url}",
             "image_url": url and f"https://i/{url}", "price": Decimal("1234.5") + n, "currency": "EUR", "stock": 1}
            for n, (title, url) in enumerate(rows)
        ],
        schema=CATALOG.schema,
    )  # fmt: skip


class Written:
    """The same rows as JSON bodies and as files; every third contact is only stamped, after its content."""

    def __init__(self, catalog, emails, lists, ids):
        self.ids, self.emails, self.numbers = (
            ids,
            pa.array(emails, pa.string()),
            np.arange(len(emails), dtype=np.uint64),
        )
        self.lists, values = lists, item_values(catalog)
        every = [np.arange(len(catalog))] * SLOTS
        urls = linked_urls(catalog, every, LinkTokens("spring", "0123456789abcdef"))
        self.fragments = (
            slot_fragments(values, every, ids, urls=urls),
            csv_fragments(values, every, urls=urls),
        )

    def _of(self, positions):
        slots = [[items[s] if s < len(items) else -1 for items in self.lists] for s in range(SLOTS)]
        return {
            "emails": self.emails.take(pa.array(positions)), "uids": self.numbers[positions],
            "slot_rows": [np.array(slot)[positions] for slot in slots],
            "counts": np.array([len(items) for items in self.lists])[positions],
            "contents": (self.numbers * np.uint64(2**56 + 1))[positions], "run": RUN,
        }  # fmt: skip

    def json(self, list_id):
        everybody = np.arange(len(self.emails))
        contacts = render_contacts(**self._of(everybody), fragments=self.fragments[0], field_ids=self.ids)
        stamped = {name: value for name, value in self._of(everybody[::3]).items() if name in ("emails", "contents")}
        stamps = render_stamps(**stamped, run="2026-11-03", field_ids=self.ids)
        return [body.content for rows in (contacts, stamps) for body in cut_bodies(rows, [list_id])]

    def files(self):
        everybody = np.arange(len(self.emails))
        stamped = {name: value for name, value in self._of(everybody[::3]).items() if name in ("emails", "contents")}
        stamps = csv_stamps(**stamped, run="2026-11-03")

        def lines(first, last):
            return csv_contacts(**self._of(everybody[first:last]), fragments=self.fragments[1])

        rows = len(self.emails)
        yield content_fields(SLOTS), lines, rows
        yield STAMP_FIELDS, lambda first, last: stamps[first:last], len(stamps)


def written(names, lines, rows):
    return write_file(csv_header([ADDRESS, *names]), lines, rows, between=lambda: None)


def read(file):
    with closing(file):
        packed = b"".join(file.parts())
    assert len(packed) == file.size
    header, *rows = csv.reader(io.StringIO(gzip.decompress(packed).decode(), newline=""))
    return header, rows


rows_of = st.tuples(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), addresses).flatmap(
    lambda pair: st.tuples(
        st.just(pair[0]),
        st.just(pair[1]),
        st.lists(
            st.lists(st.integers(0, len(pair[0]) - 1), max_size=SLOTS, unique=True),
            min_size=len(pair[1]),
            max_size=len(pair[1]),
        ),
    )
)


@settings(max_examples=80, deadline=None)
@given(rows_of)
def test_a_file_says_what_the_json_says(drawn):
    says_the_same(*drawn)


def test_a_file_of_everything_that_is_nasty_says_what_the_json_says():
    items = [(text, text) for text in NASTY]
    lists = [[n, (n + 1) % len(items)][: n % 3] for n in range(len(items))]
    assert {len(items) for items in lists} == {0, 1, 2}
    says_the_same(items, [f"a{n}'+" for n in range(len(items))], lists)


def says_the_same(items, names, lists):
    ids = {name: f"e{number}_T" for number, name in enumerate(all_fields(SLOTS), start=1)}
    both = Written(catalog_of(items), [f"{name}@example.com" for name in names], lists, ids)
    contents, stamps = [json.loads(body)["contacts"] for body in both.json("list")]
    assert len(contents) == len(names)
    for contacts, (fields, lines, rows) in zip((contents, stamps), both.files(), strict=True):
        header, cells = read(written(fields, lines, rows))
        assert header == [ADDRESS, *fields]
        said = [dict(zip([ADDRESS, *(ids[name] for name in fields)], row, strict=True)) for row in cells]
        assert said == [{ADDRESS: contact["email"], **contact["custom_fields"]} for contact in contacts]


@pytest.fixture(scope="module")
def two_providers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    with serve(folder / "a.sqlite", job_lag_seconds=0.0) as one, serve(folder / "b.sqlite", job_lag_seconds=0.0) as two:
        yield one, two


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows_of)
def test_both_methods_leave_the_very_same_contacts_at_the_provider(two_providers, drawn):
    items, names, lists = drawn
    left = []
    for server in two_providers:
        provider = SendGridProvider(server.api_key, server.host)
        ids, list_id = provider.ensure_fields(all_fields(SLOTS)), provider.ensure_list("everybody")
        both = Written(catalog_of(items), [f"{name}@example.com" for name in names], lists, ids)
        jobs = []
        if server is two_providers[0]:
            for body in both.json(list_id):
                jobs.append(provider.upsert(body))
                server.wait_until_idle()
        else:
            for fields, lines, rows in both.files():
                columns = [provider.email_field(), *(ids[name] for name in fields)]
                place = provider.request_import(columns, [list_id])
                with closing(written(fields, lines, rows)) as file:
                    provider.upload_import(place, file.parts(), file.size)
                jobs.append(place.job_id)
                server.wait_until_idle()
        done = [provider.import_job(job) for job in jobs]
        assert [(job.status, job.requested) for job in done] == [
            ("completed", len(names)),
            ("completed", -(-len(names) // 3)),
        ]
        names_of = {field_id: name for name, field_id in ids.items()}
        contacts = dict(held(server.state_path, "contacts"))
        left.append(
            (
                {
                    address: {names_of[key]: value for key, value in fields.items()}
                    for address, fields in contacts.items()
                },
                provider.list_size(list_id),
            )
        )
    assert len(left[0][0]) >= len(names)
    assert left[0] == left[1]


# The file


def numbered(first, last):
    return pa.array([f'"{n}@example.com","{"x" * (n % 7)}"\n' for n in range(first, last)])


def test_the_same_rows_are_the_same_bytes_at_any_time(monkeypatch):
    with closing(written(["x"], numbered, 5_000)) as file:
        first = b"".join(file.parts())
    monkeypatch.setattr("time.time", lambda: 0.0)
    with closing(written(["x"], numbered, 5_000)) as file:
        assert b"".join(file.parts()) == first == b"".join(file.parts())
    assert first[4:8] == bytes(4)  # no time


@pytest.mark.parametrize(("most", "room", "stop"), [(70, 10**9, 70), (100, 10**9, 100), (1_000, 500, 21)])
def test_a_file_is_cut_by_rows_and_by_bytes(monkeypatch, most, room, stop):
    monkeypatch.setattr(csv_file, "MAX_ROWS", most)
    monkeypatch.setattr(csv_file, "MAX_BYTES", room)
    monkeypatch.setattr(csv_file, "_FIRST_ROWS", 3)
    monkeypatch.setattr(csv_file, "_BATCH_BYTES", 200)
    file = written(["x"], numbered, 100)
    assert file.stop == stop
    _, rows = read(file)
    assert [row[0] for row in rows] == [f"{n}@example.com" for n in range(stop)]
    if room < 10**9:
        size = [len(line) for line in numbered(0, 100).to_pylist()]
        assert len("email,x\n") + sum(size[:stop]) <= room < len("email,x\n") + sum(size[: stop + 1])


def test_a_batch_is_as_long_as_its_rows_allow(monkeypatch):
    """Long rows after short ones: what is rendered at once stays small."""
    monkeypatch.setattr(csv_file, "_FIRST_ROWS", 10)
    monkeypatch.setattr(csv_file, "_BATCH_BYTES", 10_000)
    asked = []

    def lines(first, last):
        asked.append(last - first)
        return pa.array(["x" * (1_000 if n >= 10 else 100) + "\n" for n in range(first, last)])

    read(written(["x"], lines, 400))
    assert asked[0] == 10
    assert max(asked[2:]) <= 10
    assert sum(asked) == 400


def test_one_row_that_is_too_large_is_said(monkeypatch):
    monkeypatch.setattr(csv_file, "MAX_BYTES", 20)
    with pytest.raises(ValueError, match="one contact takes more"):
        written(["x"], numbered, 100)


def test_nothing_of_a_file_is_left(tmp_path, monkeypatch):
    """On disk while it is written, without a name; and gone if the writing is stopped."""
    monkeypatch.setattr(csv_file, "_IN_MEMORY_BYTES", 10)
    monkeypatch.setattr(csv_file, "_FIRST_ROWS", 10)
    monkeypatch.setattr(csv_file, "_BATCH_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    calls = []

    def between():
        calls.append(list(tmp_path.iterdir()))
        if len(calls) == 20:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_file(b"email,x\n", numbered, 1_000, between=between)
    file = write_file(b"email,x\n", numbered, 1_000, between=lambda: None)
    assert file.content._rolled
    assert [*calls, list(tmp_path.iterdir())] == [[]] * 21
    file.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), texts), max_size=6))
def test_cells_in_batches_are_what_they_are_one_by_one(values):
    as_json = pa.array([None if text is None else json.dumps(text, ensure_ascii=False) for text in values], pa.string())
    for text, cell in zip(values, csv_cells(as_json).to_pylist(), strict=True):
        assert (cell is None) == (text is None)
        if text is not None:
            assert next(csv.reader(io.StringIO(f'"1",{cell},"2"', newline=""))) == ["1", text, "2"]


def test_the_packing_is_gzip_whatever_the_batches():
    """The bytes do not depend on how the text was handed to zlib."""
    text = b"".join(f"{n},{n * n}\n".encode() for n in range(20_000))
    whole, parts = (zlib.compressobj(3, zlib.DEFLATED, 31) for _ in range(2))
    once = whole.compress(text) + whole.flush()
    pieces = [parts.compress(text[at : at + 997]) for at in range(0, len(text), 997)]
    assert b"".join([*pieces, parts.flush()]) == once
