import datetime as dt
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from xml.etree import ElementTree

import httpx
import pytest
from rehearsal_fixture import RehearsalServer

from jobs.delivery.mail_template import load_template
from jobs.rehearsal.intake import read_upsert
from schemas.mail_fields import RUN, all_fields, slot_field

XSS = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def fill(served: RehearsalServer, people: int, name: str = "books 2026-01-05", title: str = "Item") -> None:
    """Mail `people` contacts what a push would give them."""
    provider = served.provider
    known = provider.fields.names().values()
    for field in all_fields(6):
        if field not in known:
            provider.fields.create({"name": field, "field_type": "Text"})
    ids = {name: field for field, name in provider.fields.names().items()}
    if not provider.suppressions.groups():
        provider.suppressions.create_group({"name": "Picks", "description": "Picks"})
    everyone = provider.lists.create({"name": name[:100]})["id"]
    now = dt.datetime.now(dt.UTC)
    values = {
        ids[RUN]: "2026-01-05",
        ids[slot_field(1, "title")]: title,
        ids[slot_field(1, "url")]: "https://shop.example.com/item/1",
        ids[slot_field(1, "image")]: f"{served.host}/images/item-1.svg",
    }
    contacts = [{"email": f"user{number:03}@example.com", "custom_fields": values} for number in range(people)]
    provider.imports.queue(read_upsert({"list_ids": [everyone], "contacts": contacts}, provider.fields.types()), now)
    provider.wake()
    served.wait_until_idle()
    template = load_template(dt.date(2026, 1, 5))
    config = {
        "subject": template.subject, "html_content": template.html, "plain_content": template.text,
        "suppression_group_id": 1, "sender_id": 1,
    }  # fmt: skip
    payload = {"name": name, "send_to": {"list_ids": [everyone]}, "email_config": config}
    send = provider.single_sends.create(payload, now)["id"]
    provider.single_sends.schedule(send, {"send_at": "now"}, dt.datetime.now(dt.UTC))
    provider.wake()
    served.wait_until_idle()


@pytest.fixture
def browser(rehearsal_server: RehearsalServer) -> Iterator[httpx.Client]:
    """A client without the key: the pages are for people."""
    with httpx.Client(base_url=rehearsal_server.host, trust_env=False, follow_redirects=True) as client:
        yield client


def rows(page: str) -> list[str]:
    return re.findall(r'<span class="address">([^<]*)</span>', page)


def test_an_empty_mailbox_says_so(browser: httpx.Client) -> None:
    page = browser.get("/")
    assert page.url.path == "/mailbox"
    assert "No send yet" in page.text
    assert rows(page.text) == []


def test_mails_come_newest_first_page_by_page(rehearsal_server: RehearsalServer, browser: httpx.Client) -> None:
    fill(rehearsal_server, 60)
    found, url, pages = [], "/mailbox", 0
    while url:
        page = browser.get(url).text
        found += rows(page)
        pages += 1
        older = re.search(r'<a href="([^"]+)">Older →</a>', page)
        url = older[1].replace("&amp;", "&") if older else ""
    assert (len(found), len(set(found)), pages) == (60, 60, 3)
    assert found[0] == "user059@example.com"
    assert "<strong>60</strong> mails" in browser.get("/mailbox").text


def test_addresses_are_found_by_their_beginning(rehearsal_server: RehearsalServer, browser: httpx.Client) -> None:
    fill(rehearsal_server, 40)
    assert rows(browser.get("/mailbox", params={"address": "USER01"}).text) == [
        f"user01{n}@example.com" for n in range(10)
    ]
    assert rows(browser.get("/mailbox", params={"address": "%"}).text) == []
    first = rows(browser.get("/mailbox", params={"address": "user"}).text)
    second = rows(browser.get("/mailbox", params={"address": "user", "page": "1"}).text)
    assert first + second == [f"user{n:03}@example.com" for n in range(40)]


def test_one_send_can_be_looked_at_alone(rehearsal_server: RehearsalServer, browser: httpx.Client) -> None:
    fill(rehearsal_server, 2, name="first")
    fill(rehearsal_server, 3, name="second")
    page = browser.get("/mailbox").text
    assert len(rows(page)) == 5
    links = re.findall(r'href="(/mailbox\?send=[^"]+)">(\w+)</a>', page)
    assert [name for _, name in links] == ["second", "first"]
    assert [len(rows(browser.get(url).text)) for url, _ in links] == [3, 2]
    assert browser.get("/mailbox?send=none").status_code == 404


def test_a_mail_is_shown_as_its_recipient_sees_it(rehearsal_server: RehearsalServer, browser: httpx.Client) -> None:
    fill(rehearsal_server, 1, title="Café & Co")
    page = browser.get("/mailbox/1")
    assert "user000@example.com" in page.text
    frame = Elements(page.text).of("iframe")[0]
    assert frame["sandbox"] == "allow-popups allow-popups-to-escape-sandbox"
    mail = browser.get(str(frame["src"]))
    policy = mail.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "allow-scripts" not in policy
    assert "sandbox" in policy
    assert "https:" not in policy
    assert "https:" in browser.get("/mailbox/1/html?pictures=remote").headers["content-security-policy"]
    elements = Elements(mail.text)
    assert [image["alt"] for image in elements.of("img")] == ["Café & Co"]
    picture = browser.get(str(elements.of("img")[0]["src"]))
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert "https://shop.example.com/item/1" in page.text  # the text version
    assert browser.get("/mailbox/2").status_code == 404
    assert browser.get("/mailbox/2/html").status_code == 404


def test_nothing_that_was_pushed_becomes_an_element(rehearsal_server: RehearsalServer, browser: httpx.Client) -> None:
    fill(rehearsal_server, 1, name=XSS, title=XSS)
    for url in ("/mailbox", "/mailbox/1", "/mailbox/1/html", "/unsubscribe/1"):
        page = browser.get(url)
        assert page.status_code == 200
        elements = Elements(page.text)
        assert len(elements.found) > 5
        assert elements.of("script") == []
        assert all("onerror" not in attributes for _, attributes in elements.found)
        assert len(elements.of("img")) == (1 if url == "/mailbox/1/html" else 0)
    reflected = browser.get("/mailbox", params={"address": XSS})
    assert Elements(reflected.text).of("script") == []
    assert browser.get("/mailbox", params={"send": XSS}).status_code == 404


def test_pages_load_nothing_from_elsewhere(rehearsal_server: RehearsalServer, browser: httpx.Client) -> None:
    fill(rehearsal_server, 1)
    for url in ("/mailbox", "/mailbox/1", "/unsubscribe/1", "/mailbox/77"):
        page = browser.get(url)
        assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
        for tag, attributes in Elements(page.text).found:
            source = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
            assert source is None or (source.startswith("/") and not source.startswith("//"))
    style = browser.get("/mailbox.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_the_link_in_the_mail_takes_its_recipient_off(rehearsal_server: RehearsalServer, browser: httpx.Client) -> None:
    fill(rehearsal_server, 2)
    mail = Elements(browser.get("/mailbox/1/html").text)
    link = next(str(anchor["href"]) for anchor in mail.of("a") if "/unsubscribe/" in str(anchor["href"]))
    browser.get(link)
    assert rehearsal_server.provider.suppressions.group_members(1) == []  # a link that is only looked at does nothing
    assert "gets no further mail" in browser.post(link).text
    assert rehearsal_server.provider.suppressions.group_members(1) == ["user000@example.com"]


def test_pictures_are_well_formed_and_always_the_same(browser: httpx.Client) -> None:
    items = ["item-0012", "<script>", "ключ", "a/b", "x&y", "007", "%00", "  "]
    seen = set()
    for item in items:
        url = f"/images/{httpx.URL('/').copy_with(path='/' + item).raw_path.decode()[1:]}.svg"
        first, second = browser.get(url), browser.get(url)
        assert first.status_code == 200, item
        assert first.content == second.content
        root = ElementTree.fromstring(first.text)  # noqa: S314 - our own output
        assert root.tag.endswith("svg")
        assert not [element for element in root.iter() if element.tag.endswith("script")]
        seen.add(first.text)
    assert len(seen) == len(items)
    assert browser.get(f"/images/{'x' * 201}.svg").status_code == 404


def test_strange_queries_are_answered(browser: httpx.Client) -> None:
    for query in ("before=x", "before=-1", "page=1e9", "before=" + "9" * 30, "page=999999999", "address=%00"):
        assert browser.get(f"/mailbox?{query}").status_code in (200, 400), query
