"""Whatever a provider does with nulls and empty text, readers see the same: today's items, and none of yesterday's."""

import datetime as dt
from pathlib import Path
from typing import Any

import httpx
import pytest
from rehearsal_fixture import serve

from jobs.delivery.mail_template import load_template
from jobs.rehearsal.behaviour import CLEARING, Clearing
from jobs.rehearsal.handlebars import render
from schemas.mail_fields import BLANK, CONTENT, COUNT, EXPECTED, NEUTRAL, RUN, SLOT_PARTS, UID, all_fields, slot_field

YESTERDAY, TODAY = dt.date(2026, 1, 4), dt.date(2026, 1, 5)
SLOTS = 6
# What stands for nothing in each of the three ways; see Behaviour.clearing.
BLANKS: dict[Clearing, str | None] = {"null_refused": NEUTRAL, "null_clears": None, "empty_ignored": BLANK}


def content(date: dt.date, filled: int, blank: str | None, *, has_image: bool = True) -> dict[str, Any]:
    fields: dict[str, Any] = {
        COUNT: str(filled),
        RUN: date.isoformat(),
        UID: "u",
        CONTENT: f"{date}",
        EXPECTED: f"{date}",
    }
    for slot in range(1, SLOTS + 1):
        for part in SLOT_PARTS:
            is_there = slot <= filled and (has_image or part != "image")
            fields[slot_field(slot, part)] = f"{part} {slot} of {date}" if is_there else blank
    return fields


def seen(folder: Path, clearing: Clearing, blank: str | None, filled: int, *, has_image: bool = True) -> list[str]:
    """Push six items of yesterday, then today's; give the answer to the second push, and the mail's HTML and text."""
    with serve(folder / f"{clearing}-{filled}.sqlite") as served, served.http() as api:
        assert api.post("/_rehearsal/behaviour", json={"clearing": clearing}).is_success
        ids = {}
        for name in all_fields(SLOTS):
            made = api.post("/v3/marketing/field_definitions", json={"name": name, "field_type": "Text"})
            ids[name] = made.json()["id"]

        def push(fields: dict[str, Any]) -> httpx.Response:
            contact = {"email": "a@example.com", "custom_fields": {ids[name]: value for name, value in fields.items()}}
            answer = api.put("/v3/marketing/contacts", json={"contacts": [contact]})
            served.wait_until_idle()
            return answer

        assert push(content(YESTERDAY, SLOTS, blank)).status_code == 202
        status = push(content(TODAY, filled, blank, has_image=has_image)).status_code
        found = api.post("/v3/marketing/contacts/search/emails", json={"emails": ["a@example.com"]}).json()
        fields = found["result"]["a@example.com"]["contact"]["custom_fields"]
        template = load_template(TODAY)
        return [str(status), render(template.html, fields), render(template.text, fields)]


@pytest.mark.parametrize(("filled", "has_image"), [(2, True), (2, False), (0, True)])
def test_the_reader_sees_the_same_whatever_the_provider_does(tmp_path: Path, filled: int, has_image: bool) -> None:
    mails = [seen(tmp_path, way, BLANKS[way], filled, has_image=has_image) for way in CLEARING]
    assert len(mails) == 3
    assert mails[0] == mails[1] == mails[2]
    status, html, text = mails[0]
    assert status == "202"
    for part in (html, text):
        assert part.count(f"title 2 of {TODAY}") == (0 if filled == 0 else part.count(f"title 1 of {TODAY}"))
        assert str(YESTERDAY) not in part
        assert ("Nothing new today" in part) == (filled == 0)
    assert html.count("<img") == (filled if has_image else 0)


@pytest.mark.parametrize(
    ("clearing", "blank", "status", "is_stale"),
    [
        ("null_refused", None, "400", False),  # the whole request is refused, and yesterday's date shows nothing
        ("empty_ignored", NEUTRAL, "202", True),
        ("empty_ignored", None, "202", True),
    ],
)
def test_the_wrong_way_is_seen(
    tmp_path: Path, clearing: Clearing, blank: str | None, status: str, is_stale: bool
) -> None:
    found, html, _ = seen(tmp_path, clearing, blank, 2)
    assert found == status
    assert (str(YESTERDAY) in html) == is_stale
