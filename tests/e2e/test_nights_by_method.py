"""A whole night by Mail Send, and one by files, through Airflow: each planned user has one mail, with their own items.

Expected lists come from the plan and the shop's database; three people bought all of theirs between build and push.
"""

import html
import re
import shutil
import sqlite3
import time

import pytest
from e2e.airflow_night import CAMPAIGN, DATE, ROOT, states_of
from e2e.test_three_days import address_of_users, catalog_of, fields_at_provider, mails_of, provider_rows, shown_lists
from rehearsal_fixture import listen

from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.mail_book import MailBook
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.delivery.timing import utc_now
from jobs.lake.item_index import read_index
from jobs.settle_mails import main as settle_mails
from schemas.campaign import load_campaign
from schemas.layout import Partition
from schemas.mail_fields import SLOT_PARTS, all_fields, slot_field

SETTINGS = load_campaign(ROOT / "dags" / "campaigns" / f"{CAMPAIGN}.toml")
RUN = Run(CAMPAIGN, DATE)
SEND = "/v3/mail/send"
YESTERDAYS = "Yesterday's item"
LATE = 3  # people who bought everything in their list since the build
LEAST = 400  # users who are mailed

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.airflow,
    # Airflow's own: deprecations at import, and files that its task runner leaves to the collector.
    pytest.mark.filterwarnings("ignore"),
]


def buy_everything(night):
    """Let the first people of the plan to be buy all of their items in the night; return their user ids."""
    night.shop = shutil.copy(night.shop, night.folder / "shop.db")
    night.set("data", night.shop)
    index = read_index(night.lake).to_pylist()
    lists = night.lake.read(night.lake.manifest(Partition("recommendations", DATE, CAMPAIGN))).to_pylist()
    addresses = address_of_users(night)
    with sqlite3.connect(night.shop) as connection:
        out = {user for (user,) in connection.execute("SELECT user_id FROM users WHERE is_subscribed = 0")}
        able = [row for row in lists if row["user_id"] in addresses.keys() - out and len(row["item"]) > 3]
        buyers = sorted(able, key=lambda row: row["user_id"])[: 2 * LATE]  # the holdout may have one or two of them
        at = "2026-11-03T00:30:00.000000Z"
        connection.executemany(
            "INSERT INTO events (user_id, item_id, event_type, occurred_at, received_at, quantity, price) "
            "VALUES (?, ?, 'purchase', ?, ?, 1, 5.0)",
            [(row["user_id"], index[item], at, at) for row in buyers for item in row["item"]],
        )
    return {row["user_id"] for row in buyers}


def check_mails(night, mails):
    """Each mail is its reader's own, of this date; everybody who is planned has one, and nobody else."""
    catalog, addresses = catalog_of(night, DATE), address_of_users(night)
    lists, ruled_out = shown_lists(night, DATE)
    mailed = {user: items for user, items in lists.items() if items}
    assert len(mailed) >= LEAST
    assert ruled_out >= 3 * LATE
    assert len({tuple(items) for items in mailed.values()}) > LEAST / 4
    assert set(mails) == {addresses[user] for user in mailed}
    for user, items in mailed.items():
        fields = mails[addresses[user]]
        assert (fields["ryml_run"], fields["ryml_count"]) == (DATE.isoformat(), str(len(items)))
        assert fields["ryml_expected"] == fields["ryml_content"]
        for slot in range(1, SETTINGS.slots + 1):
            shown = tuple(fields[slot_field(slot, part)] for part in SLOT_PARTS)
            if slot > len(items):
                assert shown == ("", "", "", "")
                continue
            title, url, image, price, _, _ = catalog[items[slot - 1]]
            assert (shown[0], re.sub(r"[?&]ryml=[0-9a-f]{16}\Z", "", shown[1]), shown[2]) == (title, url, image)
            assert f"{price:,.2f}" in shown[3]
    return mailed


def check_that_mistakes_show(night, mails):
    """Planted bugs: two people's mails exchanged, yesterday's date, somebody left out, somebody too many."""
    one = next(iter(mails))
    other = next(who for who in mails if mails[who]["ryml_1_title"] != mails[one]["ryml_1_title"])
    mistakes = [
        {**mails, one: mails[other], other: mails[one]},
        {**mails, one: {**mails[one], "ryml_run": "2026-11-01"}},
        {who: fields for who, fields in mails.items() if who != one},
        {**mails, "nobody@example.com": mails[one]},
    ]
    for wrong in mistakes:
        with pytest.raises(AssertionError):
            check_mails(night, wrong)


def check_pages(night, mails):
    """As readers see some of them: today's items."""
    sample = provider_rows(night, "SELECT mail, email FROM mails ORDER BY mail")[::60]
    assert len(sample) > 5
    with night.provider.http() as api:
        for number, address in sample:
            page = html.unescape(api.get(f"/mailbox/{number}/html").text)
            assert "Nothing new today" not in page
            for slot in range(1, int(mails[address]["ryml_count"]) + 1):
                assert mails[address][slot_field(slot, "title")] in page


def mails_by_mail_send(night):
    """address -> what the mail was made of."""
    provider = night.provider.provider
    rows = provider.database.rows("SELECT email, message, personalization FROM mails ORDER BY mail")
    payloads = {number: provider.mail_send.message(number)[1] for number in {row["message"] for row in rows}}
    mails = {
        row["email"]: payloads[row["message"]]["personalizations"][row["personalization"]]["dynamic_template_data"]
        for row in rows
    }
    assert len(mails) == len(rows), "somebody was mailed twice"
    return mails


def funnel(night, dagbag):
    """Measure by the DAG; give the measures."""
    states = states_of(night.run(dagbag, "measure"))
    # A week ago there was no send.
    assert states == {"measure_campaign[-1]": "success", "measure_follow_up[-1]": "skipped"}
    rows = night.lake.read(night.lake.manifest(Partition("funnel", DATE, CAMPAIGN))).to_pylist()
    return {row["measure"]: row["value"] for row in rows}


def test_a_night_by_mail_send(dagbag, night, receiver):
    """The answer to one request is never heard; its mails are in the batch, and nobody gets a second one."""
    night.build(dagbag)
    night.use("mail_send")
    buyers = buy_everything(night)
    url, posts = receiver
    listen(night.provider, url)
    faults = {"script": [{"method": "POST", "path": SEND, "fault": "drop_after"}]}
    with night.provider.http() as api:
        assert api.post("/_rehearsal/faults", json=faults).is_success
        assert api.post("/_rehearsal/behaviour", json={"readers": {"open": 0.5, "click": 0.25}}).is_success
    states = states_of(night.run(dagbag, "send", ramp_minutes=0))
    assert set(states.values()) == {"success"}, states
    assert sum(name.startswith("push.push_chunk[") for name in states) == 3
    assert mails_by_mail_send(night) == {}  # released, and not due
    ledger = Ledger(night.ledger, utc_now)
    book = MailBook(ledger, RUN)
    assert book.batch().state == "released"
    lost = book.outcomes()["unknown"]
    assert 100 < lost < 300

    provider = night.provider.provider
    provider.clock.set_to(book.batch().send_at)
    provider.wake()
    night.provider.wait_until_idle()
    mails = mails_by_mail_send(night)
    mailed = check_mails(night, mails)
    check_that_mistakes_show(night, mails)
    check_pages(night, mails)
    planned = night.lake.manifest(Partition("chunks", DATE, CAMPAIGN)).metrics
    assert planned["clear"] == 0
    late = planned["upsert"] - len(mailed)
    assert LATE <= late <= len(buyers)
    requests = [one for one in night.provider.exchanges if (one.method, one.path) == ("POST", SEND)]
    assert [one.status for one in requests].count(202) == len(requests) - 1 == 2
    before = funnel(night, dagbag)
    assert (before["mails_delivered"], before["mails_unknown"]) == (len(mailed) - lost, lost)

    deadline = time.monotonic() + 20
    while provider.webhooks.next_due_at() is not None:
        assert time.monotonic() < deadline
        provider.clock.advance(5)
        provider.wake()
        time.sleep(0.02)
    settled = settle_mails(
        lake=night.lake.uri, date=DATE, run_id="test", campaign=night.folder / "campaigns" / f"{CAMPAIGN}.toml",
        ledger=night.ledger, events=[posts],
    )  # fmt: skip
    assert {name: settled[name] for name in ("delivered", "unknown", "not_sent", "withheld", "unknown_requests")} == {
        "delivered": len(mailed), "unknown": 0, "not_sent": 0, "withheld": late, "unknown_requests": 0,
    }  # fmt: skip
    assert {name: users for name, users in book.outcomes().items() if users} == {
        "delivered": len(mailed), "withheld": late,
    }  # fmt: skip
    after = funnel(night, dagbag)
    assert (after["mails_delivered"], after["mails_unknown"], after["mails_withheld"]) == (len(mailed), 0, late)
    assert after["recipients"] == len(mailed)
    assert after["mean_list_length"] == sum(map(len, mailed.values())) / len(mailed)


def test_a_night_by_csv_import(dagbag, night):
    """Contacts that hold yesterday's items, some of people who have nothing any more: these are cleared."""
    night.build(dagbag)
    night.use("csv_import")
    buyers, addresses = buy_everything(night), address_of_users(night)
    client = SendGridProvider(night.provider.api_key, night.provider.host)
    ids = client.ensure_fields(all_fields(SETTINGS.slots))
    old = {"ryml_run": "2026-11-01", "ryml_count": "6", **{slot_field(n, "title"): YESTERDAYS for n in range(1, 7)}}
    held = [user for user in sorted(addresses) if user not in buyers][:20] + sorted(buyers)
    contacts = [
        {"email": addresses[user], "custom_fields": {ids[name]: text for name, text in old.items()}} for user in held
    ]
    with night.provider.http() as api:
        assert api.put("/v3/marketing/contacts", json={"contacts": contacts}).is_success
    night.provider.wait_until_idle()
    assert sum(fields["ryml_1_title"] == YESTERDAYS for fields in fields_at_provider(night).values()) == len(held)
    before = len(night.provider.exchanges)

    states = states_of(night.run(dagbag, "send", ramp_minutes=0))
    assert set(states.values()) == {"success"}, states
    night.provider.wait_until_idle()
    mails = mails_of(night, DATE)
    mailed = check_mails(night, mails)
    check_pages(night, mails)
    exchanges = night.provider.exchanges[before:]
    assert not [one for one in exchanges if (one.method, one.path) == ("PUT", "/v3/marketing/contacts")]
    imports = [one for one in exchanges if (one.method, one.path) == ("PUT", "/v3/marketing/contacts/imports")]
    assert len(imports) >= 4  # a file for each chunk's content, and one with who is cleared
    with sqlite3.connect(night.folder / "rehearsal.sqlite") as connection:
        assert connection.execute("SELECT name, status FROM single_sends").fetchall() == [
            (SETTINGS.send_name(DATE), "triggered")
        ]
    lists, _ = shown_lists(night, DATE)
    cleared = {user for user, items in lists.items() if not items}
    assert LATE <= len(cleared) <= len(buyers)
    assert cleared <= buyers
    contents = fields_at_provider(night)
    for user in cleared:
        fields = contents[addresses[user]]
        assert (fields["ryml_count"], fields["ryml_run"]) == ("0", DATE.isoformat())
        shown = {fields[slot_field(slot, part)] for slot in range(1, SETTINGS.slots + 1) for part in SLOT_PARTS}
        assert shown == {""}
    receipts = night.lake.manifest(Partition("receipts", DATE, CAMPAIGN)).metrics
    assert {name: receipts[name] for name in ("delivered", "cleared", "quarantined", "expired")} == {
        "delivered": len(mailed), "cleared": len(cleared), "quarantined": 0, "expired": 0,
    }  # fmt: skip
    found = funnel(night, dagbag)
    assert (found["contacts_delivered"], found["recipients"]) == (len(mailed), len(mailed))
    assert (found["mail_requests"], found["mail_delivered"]) == (len(mailed), len(mailed))
