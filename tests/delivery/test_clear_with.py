"""Whatever a provider does with nulls and empty text: a push that is set for it shows every reader the same."""

import json
import re
import shutil
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from rehearsal_fixture import held, serve
from small_night import (
    CAMPAIGN,
    DATE,
    ITEMS,
    PLAN,
    RUN,
    SLOTS,
    address,
    chunk_plans,
    freeze,
    stale_fields,
    title,
    url,
    write,
)

from jobs.delivery import chunk_sheet
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.content_digest import content_digests, item_digests
from jobs.delivery.ledger import Ledger
from jobs.delivery.mail_template import load_template
from jobs.delivery.payload import slot_fragments
from jobs.delivery.run_context import Delivery
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.delivery.timing import REAL_TIME, utc_now
from jobs.lake.lake import Lake
from jobs.rehearsal.behaviour import CLEARING
from jobs.rehearsal.handlebars import render
from schemas.campaign import PushSettings
from schemas.layout import Partition
from schemas.mail_fields import all_fields
from schemas.tables import CATALOG

pytestmark = pytest.mark.usefixtures("small")

RIGHT = {"null_refused": "empty", "null_clears": "null", "empty_ignored": "dash"}
PUSHED = [user for user, (action, _) in PLAN.items() if action != "withheld"]
MAILED = [user for user, (action, _) in PLAN.items() if action == "upsert"]


def settings_of(clear_with):
    push = CAMPAIGN.push.model_copy(update={"clear_with": clear_with})
    return CAMPAIGN.model_copy(update={"push": push})


def without_pictures(lake):
    """Every second item has none."""
    rows = [
        {"item_id": f"{n:03}", "title": title(n), "url": url(n), "image_url": f"https://i/{n}" if n % 2 else "",
         "price": Decimal("9.50"), "currency": "EUR", "stock": 1}
        for n in range(ITEMS)
    ]  # fmt: skip
    write(lake, Partition("catalog", DATE), pa.Table.from_pylist(rows, schema=CATALOG.schema))


def pushed(base, folder, behaviour, clear_with, method="contacts"):
    """Push the night to a provider at which everybody holds two items of yesterday; give each user's mail and fields.

    Tokens in links are of each ledger's own key.
    """
    folder.mkdir()
    shutil.copytree(base, folder / "lake")
    lake = Lake.open(str(folder / "lake"))
    without_pictures(lake)
    with serve(folder / "rehearsal.sqlite", job_lag_seconds=0.0) as served:
        with served.http() as api:
            assert api.post("/_rehearsal/behaviour", json={"clearing": behaviour}).is_success
        provider = SendGridProvider(served.api_key, served.host)
        ids = provider.ensure_fields(all_fields(SLOTS))
        contacts = [{"email": address(user), "custom_fields": stale_fields(ids)} for user in PLAN]
        provider.upsert(json.dumps({"contacts": contacts}).encode())
        served.wait_until_idle()
        ledger = Ledger(f"sqlite:///{folder}/ledger.db", utc_now)
        delivery = Delivery(lake, settings_of(clear_with), RUN, ledger, provider, "test", REAL_TIME)
        freeze(delivery, method=method)
        for chunk in chunk_plans(lake):
            push_chunk(delivery, chunk.chunk)
        served.wait_until_idle()
    names = {field_id: name for name, field_id in ids.items()}
    found = dict(held(folder / "rehearsal.sqlite", "contacts"))
    template, mails = load_template(DATE), {}
    for user in PUSHED:
        fields = {names[key]: value for key, value in found[address(user)].items() if value is not None}
        mails[user] = tuple(
            re.sub(r"\?ryml(=|&#x3D;)[0-9a-f]{16}", "", render(text, fields)) for text in (template.html, template.text)
        )
    return mails, sum(counts["quarantined"] for counts in ledger.chunk_counts(RUN))


def test_the_reader_sees_the_same_at_all_three(base, tmp_path):
    assert set(RIGHT) == set(CLEARING)
    pairs = [*RIGHT.items(), ("null_refused", "dash"), ("null_clears", "dash")]
    found = [pushed(base, tmp_path / f"{behaviour}-{way}", behaviour, way) for behaviour, way in pairs]
    found += [pushed(base, tmp_path / f"{way}-file", way, RIGHT[way], "csv_import") for way in CLEARING]
    mails, quarantined = found[0]
    assert len({len(PLAN[user][1]) for user in PUSHED}) == 3  # cleared, with an unused slot, and full
    assert len(mails) == len(PUSHED)
    assert quarantined == 0
    for user in MAILED:
        html, text = mails[user]
        for item in PLAN[user][1]:
            assert title(item) in html
            assert title(item) in text
        assert html.count("<img") == sum(item % 2 for item in PLAN[user][1])
    for user in set(PUSHED) - set(MAILED):
        assert all("Nothing new today" in part for part in mails[user])
    assert not any("stale" in part for parts in mails.values() for part in parts)
    for others, set_aside in found[1:]:
        assert others == mails
        assert set_aside == 0


def test_the_wrong_setting_is_seen(base, tmp_path):
    """Ignored, yesterday's item stays in the slot; refused, nobody is pushed and everybody is set aside."""
    mails, _ = pushed(base, tmp_path / "ignored", "empty_ignored", "empty")
    one_item = [user for user in MAILED if len(PLAN[user][1]) == 1]
    assert one_item
    assert all("stale" in mails[user][0] for user in one_item)
    _, quarantined = pushed(base, tmp_path / "refused", "null_refused", "null")
    assert quarantined == len(PUSHED)  # everybody has an unused slot or an item without a picture


def test_a_setting_that_is_not_passed_on_is_caught(base, tmp_path, monkeypatch):
    """Mutant: the push writes empty text, whatever the campaign says."""
    monkeypatch.setattr(chunk_sheet, "slot_fragments", lambda *given, blank, **more: slot_fragments(*given, **more))
    mails, _ = pushed(base, tmp_path / "night", "empty_ignored", "dash")
    assert any("stale" in part for parts in mails.values() for part in parts)


def test_another_setting_is_other_content_where_something_is_empty():
    """What the provider may have kept is written anew; a list without anything empty is only stamped, as before."""
    texts = [pa.array(['"a"', '"b"']), pa.array(['"c"', '""'])]
    digests = {way: item_digests(texts, PushSettings(clear_with=way).blank) for way in ("empty", "null", "dash")}
    assert len({one[0] for one in digests.values()}) == 1
    assert len({one[1] for one in digests.values()}) == len({one[2] for one in digests.values()}) == 3
    assert digests["empty"][2] == np.uint64(0)
    full, short = [np.array([0]), np.array([0])], [np.array([0]), np.array([-1])]
    for rows, is_same in ((full, True), (short, False)):
        found = {int(content_digests(np.array([7], np.uint64), rows, one)[0]) for one in digests.values()}
        assert len(found) == (1 if is_same else 3)
