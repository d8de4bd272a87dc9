import datetime as dt
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.delivery.mail_template import FOLDER, SLOTS, load_template
from jobs.rehearsal.handlebars import compile_template, render
from schemas.errors import ConfigError
from schemas.mail_fields import COUNT, RUN, UID, all_fields, slot_field

DATE = dt.date(2026, 1, 5)
TEMPLATE = load_template(DATE)
LINKS = {
    "unsubscribe": "https://u.example.com/?a=1&b=2",
    "unsubscribe_preferences": "https://u.example.com/p",
    "Sender_Name": "Shop",
}
NEUTRAL = "Nothing new today"
XSS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</a></td></table><iframe src=//evil.example.com>",
    "{{email}} {{{unsubscribe}}} {{#each x}}",
    "&lt;b&gt; <b>bold</b>",
    "`=<svg/onload=alert(1)>",
    "<!-- --><style>*{display:none}</style>",
)


def contact(
    filled: int, run: str = "2026-01-05", title: str = "Item {slot}", price: str = "9.99 EUR"
) -> dict[str, str]:
    """A contact as a push leaves it: every field is there, unused ones are empty."""
    fields = dict.fromkeys(all_fields(SLOTS), "") | {COUNT: str(filled), RUN: run, UID: "u1"}
    for slot in range(1, filled + 1):
        fields[slot_field(slot, "title")] = title.format(slot=slot) if "{slot}" in title else title
        fields[slot_field(slot, "url")] = f"https://shop.example.com/item/{slot}?c=spring&u=1"
        fields[slot_field(slot, "image")] = f"https://shop.example.com/images/{slot}.svg"
        fields[slot_field(slot, "price")] = price
    return fields | LINKS


class Elements(HTMLParser):
    """Counts what a browser would make of the HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, tag: str, name: str) -> list[str | None]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


@pytest.mark.parametrize("filled", range(SLOTS + 1))
def test_each_filled_slot_is_shown_and_no_other(filled: int) -> None:
    html = Elements(render(TEMPLATE.html, contact(filled)))
    text = render(TEMPLATE.text, contact(filled))
    titles = [f"Item {slot}" for slot in range(1, filled + 1)]
    assert html.values("img", "alt") == titles
    assert [part for part in html.text if part.startswith("Item ")] == titles
    assert len(html.values("a", "href")) == filled + 2
    assert re.findall(r"Item \d", text) == titles
    assert text.count("9.99 EUR") == filled
    assert (NEUTRAL in "".join(html.text)) == (NEUTRAL in text) == (filled == 0)


@pytest.mark.parametrize("run", ["2026-01-04", "2026-01-06", "", "2026-01-05 "])
def test_what_was_pushed_for_another_day_is_not_shown(run: str) -> None:
    for content in (render(TEMPLATE.html, contact(SLOTS, run)), render(TEMPLATE.text, contact(SLOTS, run))):
        assert "Item" not in content
        assert "shop.example.com" not in content
        assert "9.99" not in content
        assert NEUTRAL in content
        assert "unsubscribe" in content.lower()


def test_a_contact_without_any_field_gets_the_neutral_text() -> None:
    assert NEUTRAL in render(TEMPLATE.html, LINKS)
    assert NEUTRAL in render(TEMPLATE.text, LINKS)


@pytest.mark.parametrize("payload", XSS)
def test_titles_and_prices_never_become_elements(payload: str) -> None:
    plain = Elements(render(TEMPLATE.html, contact(SLOTS)))
    attacked = Elements(render(TEMPLATE.html, contact(SLOTS, title=payload, price=payload)))
    assert attacked.tags == plain.tags
    assert [(tag, name) for tag, name, _ in attacked.attributes] == [(tag, name) for tag, name, _ in plain.attributes]
    assert attacked.values("img", "alt") == [payload] * SLOTS
    assert "".join(attacked.text).count(payload) == 2 * SLOTS


@pytest.mark.parametrize("payload", [*XSS, "x onerror=alert(1) y", "x' onerror='alert(1)", "x\tstyle=position:fixed"])
def test_no_field_at_all_leaves_its_place(payload: str) -> None:
    plain = Elements(render(TEMPLATE.html, contact(SLOTS)))
    fields = {
        name: payload if name.startswith("ryml_") and name != RUN else value for name, value in contact(6).items()
    }
    attacked = Elements(render(TEMPLATE.html, fields))
    assert attacked.tags == plain.tags
    assert [(tag, name) for tag, name, _ in attacked.attributes] == [(tag, name) for tag, name, _ in plain.attributes]
    assert attacked.values("img", "src") == [payload] * SLOTS
    assert attacked.values("a", "href")[:SLOTS] == [payload] * SLOTS


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_no_text_at_all_becomes_an_element(value: str) -> None:
    fields = contact(2) | {
        slot_field(1, "title"): f"t{value}",
        slot_field(1, "url"): value,
        slot_field(1, "price"): value,
    }
    plain, attacked = Elements(render(TEMPLATE.html, contact(2, price=""))), Elements(render(TEMPLATE.html, fields))
    expected = [tag for tag in plain.tags if tag != "span"]
    assert [tag for tag in attacked.tags if tag != "span"] == expected


def test_links_and_text_arrive_as_they_are() -> None:
    fields = contact(1, title="Tom & Jerry's <3")
    html = Elements(render(TEMPLATE.html, fields))
    assert html.values("a", "href") == [fields["ryml_1_url"], LINKS["unsubscribe"], LINKS["unsubscribe_preferences"]]
    text = render(TEMPLATE.text, fields)
    assert "Tom & Jerry's <3" in text
    assert fields["ryml_1_url"] in text
    assert f"Unsubscribe: {LINKS['unsubscribe']}" in text


def test_the_template_uses_the_push_fields_and_nothing_unknown() -> None:
    for content in (TEMPLATE.html, TEMPLATE.text, TEMPLATE.subject):
        compile_template(content)  # raises for what SendGrid would not render
    used = set(re.findall(r"ryml_[a-z0-9_]+", TEMPLATE.html))
    assert used == set(all_fields(SLOTS)) - {UID}
    raw = set(re.findall(r"\{\{\{([^}]*)\}\}\}", TEMPLATE.html))
    assert raw == {"unsubscribe", "unsubscribe_preferences"}
    assert TEMPLATE.subject == "Picked for you"
    assert "campaign_date" not in TEMPLATE.html + TEMPLATE.text


def test_the_mail_is_small_enough_not_to_be_clipped() -> None:
    # Gmail cuts a message's HTML at about 102 kB.
    longest = contact(SLOTS, title="x" * 1000, price="9" * 1000)
    assert len(render(TEMPLATE.html, longest).encode()) < 60_000
    assert len(render(TEMPLATE.html, contact(SLOTS)).encode()) < 12_000


def test_every_picture_has_a_text_and_links_are_underlined_for_everyone() -> None:
    html = Elements(render(TEMPLATE.html, contact(SLOTS)))
    assert len(html.values("img", "alt")) == len(html.values("img", "src")) == SLOTS
    assert all(html.values("img", "alt"))
    assert html.values("html", "lang") == ["en"]
    assert set(html.values("table", "role")) == {"presentation"}


@pytest.mark.parametrize("missing", ["mail.html", "mail.txt"])
def test_a_template_that_never_asks_for_the_date_is_refused(tmp_path: Path, missing: str) -> None:
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    load_template(DATE, folder=tmp_path)
    content = (tmp_path / missing).read_text("utf-8").replace("[[campaign_date]]", "2026-01-01")
    (tmp_path / missing).write_text(content, "utf-8")
    with pytest.raises(ConfigError, match="another day"):
        load_template(DATE, folder=tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_template(DATE, folder=tmp_path)
