"""Render one user's mail of a date into files, as a push of this moment would fill it. Nothing is sent or noted.

Reads:  recommendations and users of the date, the newest catalog, the ledger's keys
Writes: OUT.html and OUT.txt, for their owner alone
Run:    python -m jobs.preview_mail --lake LAKE --date 2026-11-02 --run-id by-hand --user 42 --out preview \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import add_ledger, job_parser, run
from jobs.delivery.addresses import LINK_KEY, UID_KEY
from jobs.delivery.chunk_rows import newest_catalog
from jobs.delivery.ledger import Ledger
from jobs.delivery.link_tokens import LinkTokens
from jobs.delivery.mail_template import load_template
from jobs.delivery.payload import item_values, linked_urls, render_contacts, slot_fragments
from jobs.delivery.timing import utc_now
from jobs.lake.buckets import bucket_of, keyed_hash
from jobs.lake.item_index import read_index, to_items
from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat
from jobs.rehearsal.handlebars import render
from jobs.rehearsal.mailbox_pages import SENDER
from schemas.campaign import Campaign, load_campaign
from schemas.errors import ConfigError
from schemas.layout import Partition
from schemas.mail_fields import COUNT, all_fields, own_field

# Where the provider puts each recipient's own links.
LINKS = {"unsubscribe": "about:blank#unsubscribe", "unsubscribe_preferences": "about:blank#preferences"}


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    add_ledger(parser)
    parser.add_argument("--user", required=True, help="the user's id, as the source writes it")
    parser.add_argument("--out", required=True, type=Path, help="where the files go, without .html and .txt")
    return parser


def main(*, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, user: str, out: Path) -> dict[str, Any]:
    """Write the mail; return how many items it shows.

    Raises: ConfigError if there is no such user with an address on that date.
    """
    settings = load_campaign(campaign)
    fields = user_fields(Lake.open(lake), settings, Ledger(ledger, utc_now), date, user)
    template = load_template(date, settings.mail.field_prefix)
    values = {**SENDER, **LINKS, **fields}
    for suffix, content in ((".html", template.html), (".txt", template.text)):
        path = out.with_name(out.name + suffix)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)  # a mail is somebody's
        path.write_text(render(content, values), encoding="utf-8")
    return {
        "rows": int(fields[own_field(COUNT, settings.mail.field_prefix)]),
        "html": f"{out}.html",
        "text": f"{out}.txt",
    }


def user_fields(lake: Lake, settings: Campaign, ledger: Ledger, date: dt.date, user: str) -> dict[str, str]:
    """Give a user's contact fields by name, rendered by the same functions as a push's."""
    users = lake.manifest(Partition("users", date))
    bucket = int(bucket_of(pa.array([user]), users.buckets)[0])
    people = lake.read(users, bucket=bucket, columns=["user_id", "email"])
    found = people.filter(pc.equal(people["user_id"], user))
    if len(found) == 0 or found["email"][0].as_py() is None:
        raise ConfigError(
            f"no user of that id with an e-mail address on {date} ({lake}); expected an id as the source writes it. "
            "Look for it in the users of that date"
        )
    recommended = lake.manifest(Partition("recommendations", date, settings.name))
    lists = lake.read(recommended, bucket=bucket, columns=["user_id", "item"])
    items = flat(lists.filter(pc.equal(lists["user_id"], user))["item"]).astype(np.int64)

    catalog, index = lake.read(newest_catalog(lake, date)), read_index(lake)
    known = pc.is_in(catalog["item_id"], value_set=index)
    catalog = catalog.filter(pc.and_(pc.greater(catalog["stock"], 0), known))
    row_of_item = np.full(len(index), -1)
    row_of_item[to_items(index, catalog["item_id"]).to_numpy()] = np.arange(len(catalog))
    rows = row_of_item[items]
    rows = rows[rows >= 0][: settings.slots]
    rows = rows if len(rows) >= settings.min_items else rows[:0]  # a user with fewer is cleared

    names = all_fields(settings.slots)
    email = found["email"].combine_chunks()
    uids = keyed_hash(pc.binary_join_element_wise(found["user_id"].combine_chunks(), email, "\n"), ledger.key(UID_KEY))
    shown = [np.arange(len(catalog))] * settings.slots
    urls = linked_urls(catalog, shown, LinkTokens(settings.name, ledger.key(LINK_KEY)))
    own = {name: own_field(name, settings.mail.field_prefix) for name in names}
    contact = render_contacts(
        emails=email,
        uids=uids,
        slot_rows=[np.array([rows[slot] if slot < len(rows) else -1]) for slot in range(settings.slots)],
        counts=np.array([len(rows)]),
        contents=uids,
        fragments=slot_fragments(item_values(catalog), shown, own, blank=settings.push.blank, urls=urls),
        field_ids=own,
        run=date.isoformat(),
    )
    fields: dict[str, str | None] = json.loads(contact[0].as_py())["custom_fields"]
    return {name: value for name, value in fields.items() if value is not None}


if __name__ == "__main__":
    run(main, arg_parser())
