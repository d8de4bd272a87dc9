"""The mail in a real browser, as wide as a telephone and as a mail program's window; skipped where there is none."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from test_mail_template import NEUTRAL, SLOTS, TEMPLATE, contact

from jobs.rehearsal.handlebars import render
from schemas.mail_fields import slot_field

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
WIDTHS = (320, 640)
COLUMNS = {320: 1, 640: 2}
LONG_WORD = "Donaudampfschifffahrtsgesellschaftskapitänsmützenständerhalterungsschraube"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine; the mail was not looked at in a browser")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, headless=True, args=OPTIONS)
        yield found
        found.close()


def show(browser: Browser, width: int, fields: dict[str, str], **options: Any) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=True, **options)
    page.route("http*://**", lambda route: route.abort())  # pictures are the world's, and it may be away
    page.set_content(render(TEMPLATE.html, fields))
    return page


def boxes(page: Page, selector: str) -> list[dict[str, float]]:
    found = [element.bounding_box() for element in page.query_selector_all(selector)]
    return [box for box in found if box is not None]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("title", ["Item {slot}", LONG_WORD, "short " * 40])
def test_nothing_is_wider_than_the_window(browser: Browser, width: int, title: str) -> None:
    page = show(browser, width, contact(SLOTS, title=title))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    slots = boxes(page, ".slot")
    assert len(slots) == SLOTS
    for box in (*slots, *boxes(page, ".slot a"), *boxes(page, ".slot img")):
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("filled", [1, 3, SLOTS])
def test_items_stand_in_one_column_or_in_two(browser: Browser, width: int, filled: int) -> None:
    page = show(browser, width, contact(filled))
    slots = boxes(page, ".slot")
    assert len(slots) == filled
    rows: dict[float, int] = {}
    for box in slots:
        rows[box["y"]] = rows.get(box["y"], 0) + 1
    assert max(rows.values()) == min(COLUMNS[width], filled)
    # No item lies over another.
    for one in slots:
        for other in slots:
            apart = (
                one is other
                or one["x"] + one["width"] <= other["x"] + 0.5
                or other["x"] + other["width"] <= one["x"] + 0.5
                or one["y"] + one["height"] <= other["y"] + 0.5
                or other["y"] + other["height"] <= one["y"] + 0.5
            )
            assert apart
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_can_be_read_and_touched(browser: Browser, width: int) -> None:
    page = show(browser, width, contact(SLOTS))
    sizes = page.eval_on_selector_all(
        "a, span, h1, p", "found => found.map(one => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert len(sizes) > 20
    assert min(sizes) >= 13
    links = boxes(page, ".slot > div > a")
    assert len(links) == SLOTS
    assert all(box["height"] >= 44 and box["width"] >= 200 for box in links)
    texts = page.inner_text("body")
    for slot in range(1, SLOTS + 1):
        assert f"Item {slot}" in texts
    assert page.is_visible("text=Unsubscribe")
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser: Browser, width: int, scheme: str) -> None:
    page = show(browser, width, contact(SLOTS), color_scheme=scheme)
    ratios = page.eval_on_selector_all(
        "h1, .slot span, .rule, .rule a",
        """found => {
          const light = text => {
            const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(Number).map(v => v / 255)
              .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          return found.map(one => {
            let behind = one;
            const none = 'rgba(0, 0, 0, 0)';
            while (behind && getComputedStyle(behind).backgroundColor === none) behind = behind.parentElement;
            const a = light(getComputedStyle(one).color), b = light(getComputedStyle(behind).backgroundColor);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          });
        }""",
    )
    assert len(ratios) >= SLOTS * 3
    assert min(ratios) >= 4.5  # WCAG 2.1, level AA
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("run", ["2026-01-05", "2026-01-04"])
def test_a_cleared_or_foreign_contact_sees_the_neutral_text(browser: Browser, width: int, run: str) -> None:
    fields = contact(0 if run == "2026-01-05" else SLOTS, run=run)
    page = show(browser, width, fields)
    assert boxes(page, ".slot") == []
    assert NEUTRAL in page.inner_text("body")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_hostile_title_runs_nothing(browser: Browser) -> None:
    page = show(browser, 640, contact(SLOTS, title="<script>document.title='hit'</script><img src=x onerror=alert(1)>"))
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.wait_for_timeout(100)
    assert page.title() != "hit"
    assert dialogs == []
    assert len(page.query_selector_all("img")) == SLOTS
    assert page.query_selector_all("script") == []
    page.close()


def test_an_item_without_picture_or_price_has_no_hole(browser: Browser) -> None:
    for blank in ("", "-"):
        fields = contact(SLOTS) | {slot_field(1, "image"): blank, slot_field(1, "price"): blank}
        page = show(browser, 320, fields)
        slots, pictures = boxes(page, ".slot"), page.query_selector_all("img")
        assert len(pictures) == SLOTS - 1
        assert slots[0]["height"] < slots[1]["height"]
        page.close()
