"""Tokens in links: told apart and looked up by who has the key, and nothing to anybody else."""

import json
import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan_and_payload import catalog_table

from jobs.delivery.link_tokens import PARAMETER, LinkTokens, around_token
from jobs.delivery.payload import item_values, linked_urls, slot_fragments
from schemas.mail_fields import TEXT_LIMIT, all_fields, slot_field

TOKENS = LinkTokens("spring", "0123456789abcdef")
SLOTS = 3
ITEMS = pa.chunked_array([pa.array(["1", "11", "007", "7", "ü", "a/b", "x\ty"])])


def test_each_item_and_slot_of_each_campaign_has_its_own_token_and_always_the_same() -> None:
    found = [token for slot in range(1, SLOTS + 1) for token in TOKENS.of(ITEMS, slot).to_pylist()]
    assert len(set(found)) == SLOTS * len(ITEMS)
    assert all(re.fullmatch("[0-9a-f]{16}", token) for token in found)
    assert TOKENS.of(ITEMS, 1).to_pylist() == found[: len(ITEMS)]
    for other in (LinkTokens("sprint", TOKENS.key), LinkTokens("spring", "fedcba9876543210")):
        assert set(other.of(ITEMS, 1).to_pylist()).isdisjoint(found)
    # Slot 1 of item "1" is not slot 11 of item "", and so on: the parts can not run into each other.
    assert TOKENS.of(pa.array(["11"]), 1) != TOKENS.of(pa.array(["1"]), 11)


def test_a_token_is_looked_up_by_who_has_the_key() -> None:
    wanted = TOKENS.of(ITEMS, 2).to_pylist()
    found = TOKENS.find([*wanted, "0" * 16, "no token", wanted[0]], ITEMS, SLOTS)
    assert found == {token: (2, row) for row, token in enumerate(wanted)}
    assert LinkTokens("spring", "fedcba9876543210").find(wanted, ITEMS, SLOTS) == {}
    assert TOKENS.find([], ITEMS, SLOTS) == {}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["https://e.example/x", "https://e.example/x?a=1&b=2", "https://e.example/", "/x?y"]),
    st.sampled_from(["", "#top", "#a=1?b"]),
)
def test_a_link_is_the_same_but_for_its_token(address: str, fragment: str) -> None:
    around = around_token(address + fragment)
    assert around is not None
    url = f"{around[0]}{'0' * 16}{around[1]}"
    before, after = urlsplit(address + fragment), urlsplit(url)
    assert (after.scheme, after.netloc, after.path, after.fragment) == (
        before.scheme, before.netloc, before.path, before.fragment,
    )  # fmt: skip
    assert parse_qs(after.query) == {**parse_qs(before.query), PARAMETER: ["0" * 16]}


@pytest.mark.parametrize("url", ["", "https://e.example/" + "x" * (TEXT_LIMIT - 30)])
def test_no_link_and_a_long_one_stay_as_they_are(url: str) -> None:
    assert around_token(url) is None
    assert around_token("https://e.example/" + "x" * (TEXT_LIMIT - 18 - 22)) is not None
    assert around_token("https://e.example/" + "x" * (TEXT_LIMIT - 18 - 21)) is None


def test_the_push_puts_tokens_into_links_alone() -> None:
    catalog = catalog_table()
    ids = {name: name for name in all_fields(SLOTS)}
    values = item_values(catalog)
    every = [np.arange(len(catalog))] * SLOTS
    plain = slot_fragments(values, every, ids)
    linked = slot_fragments(values, every, ids, urls=linked_urls(catalog, every, TOKENS))
    seen = set()
    for slot in range(1, SLOTS + 1):
        for row in range(len(catalog) + 1):
            before, after = (json.loads("{" + found[slot - 1][row].as_py()[1:] + "}") for found in (plain, linked))
            url = slot_field(slot, "url")
            assert {name: value for name, value in before.items() if name != url} == {
                name: value for name, value in after.items() if name != url
            }
            if row == len(catalog):
                assert after[url] == ""
                continue
            token = parse_qs(urlsplit(after[url]).query)[PARAMETER][0]
            assert after[url] == f"{before[url]}?{PARAMETER}={token}"
            assert TOKENS.find([token], catalog["item_id"], SLOTS) == {token: (slot, row)}
            seen.add(token)
    assert len(seen) == SLOTS * len(catalog)
    for slot in linked:
        assert "@" not in "".join(slot.to_pylist())


@pytest.mark.parametrize(("blank", "text"), [("", '""'), ("-", '"-"'), (None, "null")])
def test_what_is_empty_is_written_as_the_provider_needs_it(blank: str | None, text: str) -> None:
    values = {part: pa.array(['"x"', '""']) for part in ("title", "url", "image", "price")}
    ids = {name: name for name in all_fields(1)}
    fragments = slot_fragments(values, [np.arange(2)], ids, blank=blank)[0].to_pylist()
    assert fragments[0].count('"x"') == 4
    assert (
        fragments[1]
        == fragments[2]
        == "".join(f',"ryml_1_{part}":{text}' for part in ("title", "url", "image", "price"))
    )
