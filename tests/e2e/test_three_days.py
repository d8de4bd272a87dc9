"""Three nights through the jobs, with a real rehearsal provider over HTTP, against what the shop's database says."""

import datetime as dt
import re
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from rehearsal_fixture import held, serve
from rule_oracle import RuleOracle

from jobs import (
    backtest_models,
    export_table,
    finish_build,
    fold_profiles,
    index_items,
    list_chunks,
    make_demo_shop,
    plan_push,
    preview_mail,
    pull_recent_events,
    pull_suppressions,
    push_chunk,
    recommend_items,
    reconcile_push,
    schedule_send,
    train_correlations,
)
from jobs.delivery.mail_template import load_template
from jobs.delivery.run_context import ProviderAddress
from jobs.explain.explain import Explainer
from jobs.lake.item_index import read_index
from jobs.lake.lake import Lake
from jobs.ranking.rules import IN_LIST, RULES
from jobs.rehearsal.faults import REQUEST_FAULTS, FaultSettings, rehearsed_faults
from jobs.rehearsal.handlebars import render
from jobs.rehearsal.history import fault_counts
from jobs.rehearsal.mailbox_pages import SENDER
from schemas.campaign import load_campaign
from schemas.errors import ConfigError, EmptyPartitionError, GateError, MailError
from schemas.layout import Partition
from schemas.mail_fields import SLOT_PARTS, slot_field

ROOT = Path(__file__).resolve().parents[2]
CAMPAIGN = ROOT / "dags" / "campaigns" / "resources_you_may_like.toml"
RESTOCKED = ROOT / "dags" / "campaigns" / "back_in_stock.toml"
SETTINGS = load_campaign(CAMPAIGN)
SOURCE = ROOT / "docs" / "examples" / "demo_shop.toml"
DAYS = [dt.date(2026, 11, 2), dt.date(2026, 11, 3), dt.date(2026, 11, 4)]
FIRST_DAY = dt.date(2026, 10, 4)
USERS = 1_500

pytestmark = [pytest.mark.e2e, pytest.mark.spark]


def again(job, **options):
    """Run a job as Airflow does: once more, up to ten times, if the provider did not do what was asked."""
    for _ in range(9):
        try:
            return job(**options)
        except (MailError, EmptyPartitionError, GateError):
            time.sleep(1)
    return job(**options)


class Night:
    """One shop, one lake, one ledger, one provider."""

    def __init__(self, folder, shop, provider):
        self.folder, self.shop, self.provider = folder, shop, provider
        self.lake_uri = str(folder / "lake")
        self.ledger = f"sqlite:///{folder}/ledger.db"
        self.sent = {}

    def build(self, date, run_id="test"):
        common = {"lake": self.lake_uri, "date": date, "run_id": run_id}
        for table in ("events", "catalog", "users"):
            export_table.main(**common, table=table, source=SOURCE, data=self.shop, buckets=4)
        index_items.main(**common)
        fold_profiles.main(**common, mailed_by=SETTINGS.name)
        backtest_models.main(**common, campaign=CAMPAIGN)
        train_correlations.main(**common, campaign=CAMPAIGN)
        result = recommend_items.main(**common, campaign=CAMPAIGN)
        finish_build.main(**common, campaign=CAMPAIGN)
        recommend_items.main(**common, campaign=RESTOCKED)
        finish_build.main(**common, campaign=RESTOCKED)
        return result

    def send(self, date, run_id="test", campaign=CAMPAIGN):
        common = {"lake": self.lake_uri, "date": date, "run_id": run_id, "campaign": campaign, "ledger": self.ledger}
        provider = ProviderAddress(self.provider.host, self.provider.api_key)
        again(pull_suppressions.main, **common, provider=provider)
        plan = plan_push.main(**common, ramp_minutes=0)
        pull_recent_events.main(
            lake=self.lake_uri, date=date, run_id=run_id, campaign=campaign, source=SOURCE, data=str(self.shop)
        )
        chunks = list_chunks.main(**common)["chunks"]
        assert chunks
        for chunk in chunks:
            again(push_chunk.main, **common, provider=provider, chunk=chunk["chunk"])
        books = again(reconcile_push.main, **common, provider=provider)
        send = again(schedule_send.main, **common, provider=provider)
        self.provider.wait_until_idle()
        return plan, books, send

    @property
    def lake(self):
        return Lake.open(self.lake_uri)

    def rows(self, table, date):
        return self.lake.read(self.lake.manifest(Partition(table, date, SETTINGS.name))).to_pylist()


@pytest.fixture(scope="module")
def nights(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three-days")
    shop = folder / "shop.db"
    make_demo_shop.main(
        path=shop, parquet=None, users=USERS, items=None, seed=7, first_date=FIRST_DAY, last_date=DAYS[-1], days=1,
        workers=1, image_base_url="http://127.0.0.1:8085/images",
    )  # fmt: skip
    with serve(folder / "rehearsal.sqlite") as provider:
        night = Night(folder, shop, provider)
        for date in DAYS:
            night.build(date)
            if date == DAYS[-1]:  # everything below holds for a night of which the provider spoils what it can
                provider.provider.faults.replace(rehearsed_faults(7))
            night.sent[date] = night.send(date)
        night.faults = fault_counts(provider.provider.history.path)
        provider.provider.faults.replace(FaultSettings())
        yield night


def provider_rows(night, query, parameters=()):
    with sqlite3.connect(night.folder / "rehearsal.sqlite") as connection:
        return connection.execute(query, parameters).fetchall()


def mails_of(night, date, campaign=SETTINGS):
    """Each mail of a date's single send: address -> custom fields by name, as they were when it was sent."""
    names = dict(provider_rows(night, "SELECT id, name FROM field_definitions"))
    sent = "mails WHERE single_send = (SELECT single_send FROM single_sends WHERE name = ?)"
    rows = held(night.provider.state_path, sent, campaign.send_name(date))
    mails = {email: {names[key]: value for key, value in fields.items()} for email, fields in rows}
    assert len(mails) == len(rows), "somebody was mailed twice"
    return mails


def address_of_users(night):
    with sqlite3.connect(night.shop) as connection:
        return {
            user: email.strip().lower()
            for user, email in connection.execute("SELECT user_id, email FROM users WHERE email IS NOT NULL")
        }


def catalog_of(night, date):
    """item_id -> (title, url, image, price) of what was in stock at the end of the date, straight from the shop."""
    end = (date + dt.timedelta(days=1)).isoformat() + "T00:00:00.000000Z"
    with sqlite3.connect(night.shop) as connection:
        rows = connection.execute(
            """
            SELECT i.item_id, i.title, i.url, i.image_url, h.price, h.stock, i.currency FROM items i
            JOIN item_history h ON h.item_id = i.item_id
            WHERE h.valid_from = (SELECT MAX(valid_from) FROM item_history WHERE item_id = i.item_id AND valid_from < ?)
              AND i.created_at < ? AND (i.delisted_at IS NULL OR i.delisted_at >= ?)
            """,
            (end, end, end),
        ).fetchall()
    return {row[0]: row[1:] for row in rows if row[5] > 0}


def forbidden_of(night, date):
    """user -> items that they have bought, wished for or put into the cart, by walking through the shop's events."""
    end = (date + dt.timedelta(days=1)).isoformat() + "T00:00:00.000000Z"
    start = FIRST_DAY.isoformat() + "T00:00:00.000000Z"
    with sqlite3.connect(night.shop) as connection:
        events = connection.execute(
            """
            SELECT user_id, item_id, event_type FROM events
            WHERE received_at >= ? AND received_at < ? ORDER BY occurred_at, event_id
            """,
            (start, end),
        ).fetchall()
    assert len(events) > 10_000
    bought, wished, cart = {}, set(), set()
    for user, item, kind in events:
        key = (user, item)
        if kind == "purchase":
            bought[key] = bought.get(key, 0) + 1
            cart.discard(key)
        elif kind == "refund":
            bought[key] = bought.get(key, 0) - 1
        elif kind == "wishlist_add":
            wished.add(key)
        elif kind == "wishlist_remove":
            wished.discard(key)
        elif kind == "cart_add":
            cart.add(key)
        elif kind == "cart_remove":
            cart.discard(key)
    forbidden = {}
    for user, item in {key for key, net in bought.items() if net > 0} | wished | cart:
        forbidden.setdefault(user, set()).add(item)
    return forbidden


def end_of(date):
    return dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), dt.UTC)


def shown_lists(night, date, settings=SETTINGS):
    """user -> item ids that their mail shows: the plan's, less what they did since the build rules out."""
    index = read_index(night.lake).to_pylist()
    oracle = RuleOracle(night.shop, end_of(date), settings.mail.send_time.due_at(date), settings.exclude)
    rules = ("bought", "in_cart", "wishlisted", "seen")
    lists, ruled_out = {}, 0
    for row in night.lake.read(night.lake.manifest(Partition("chunks", date, settings.name))).to_pylist():
        if row["action"] == "upsert":
            items = [index[item] for item in row["item"]]
            kept = [item for item in items if not any(oracle.applies(rule, row["user_id"], item) for rule in rules)]
            ruled_out += len(items) - len(kept)
            lists[row["user_id"]] = kept if len(kept) >= settings.min_items else []
    return lists, ruled_out


def test_what_was_bought_or_seen_between_build_and_push_is_not_mailed(nights):
    """The morning's events are in the shop and in no build: two of the three sends have some."""
    assert sum(shown_lists(nights, date)[1] for date in DAYS) > 10
    for date in DAYS:
        books = nights.sent[date][1]
        assert 0 <= books["exclusion_lag_p50_seconds"] <= books["exclusion_lag_p99_seconds"] < 600


@pytest.mark.parametrize("date", DAYS, ids=str)
def test_every_mailed_user_sees_their_own_items(nights, date):
    index = read_index(nights.lake).to_pylist()
    catalog, mails, addresses = catalog_of(nights, date), mails_of(nights, date), address_of_users(nights)
    lists, _ = shown_lists(nights, date)
    recommended = {
        row["user_id"]: [index[item] for item in row["item"]] for row in nights.rows("recommendations", date)
    }
    planned = {user for user, items in lists.items() if items}
    assert len(planned) > USERS / 2
    assert all(set(lists[user]) <= set(recommended[user]) for user in planned)
    assert set(mails) == {addresses[user] for user in planned}
    for user in planned:
        fields = mails[addresses[user]]
        assert fields["ryml_run"] == date.isoformat()
        assert fields["ryml_count"] == str(len(lists[user]))
        for slot in range(1, SETTINGS.slots + 1):
            shown = tuple(fields[slot_field(slot, part)] for part in SLOT_PARTS)
            if slot > len(lists[user]):
                assert shown == ("", "", "", "")
                continue
            title, url, image, price, _, _ = catalog[lists[user][slot - 1]]
            assert (shown[0], re.sub(r"[?&]ryml=[0-9a-f]{16}\Z", "", shown[1]), shown[2]) == (title, url, image)
            assert shown[1] != url
            assert f"{price:,.2f}" in shown[3]


@pytest.mark.parametrize("date", DAYS, ids=str)
def test_nobody_is_mailed_what_they_have_or_what_is_sold_out(nights, date):
    index = read_index(nights.lake).to_pylist()
    catalog, forbidden = catalog_of(nights, date), forbidden_of(nights, date)
    looked_at = clashes = 0
    for row in nights.rows("recommendations", date):
        items = {index[item] for item in row["item"]}
        assert len(items) == len(row["item"])
        assert items <= set(catalog)
        clashes += len(items & forbidden.get(row["user_id"], set()))
        looked_at += len(items)
    assert looked_at > 3 * USERS / 2
    assert clashes == 0


def test_users_who_lose_everything_are_cleared_and_not_mailed(nights):
    addresses, cleared = address_of_users(nights), 0
    for date in DAYS[1:]:
        gone = {row["user_id"] for row in nights.rows("chunks", date) if row["action"] == "clear"}
        emptied = sum(not items for items in shown_lists(nights, date)[0].values())
        assert nights.sent[date][1]["cleared"] == len(gone) + emptied
        assert not {addresses[user] for user in gone} & set(mails_of(nights, date))
        cleared += len(gone)
    assert cleared > 0
    names = dict(provider_rows(nights, "SELECT id, name FROM field_definitions"))
    contacts = {
        email: {names[key]: value for key, value in fields.items()}
        for email, fields in held(nights.provider.state_path, "contacts")
    }
    last = {row["user_id"] for row in nights.rows("chunks", DAYS[-1]) if row["action"] == "clear"}
    for user in last:
        fields = contacts[addresses[user]]
        assert (fields["ryml_count"], fields["ryml_run"]) == ("0", DAYS[-1].isoformat())
        assert {fields[slot_field(slot, part)] for slot in range(1, SETTINGS.slots + 1) for part in SLOT_PARTS} == {""}


def test_users_without_a_subscription_or_an_address_are_withheld(nights):
    end = (DAYS[0] + dt.timedelta(days=1)).isoformat() + "T00:00:00.000000Z"
    with sqlite3.connect(nights.shop) as connection:
        out = dict(
            connection.execute("SELECT user_id, email FROM users WHERE unsubscribed_at < ? OR email IS NULL", (end,))
        )
    plan = {row["user_id"]: row for row in nights.rows("chunks", DAYS[0])}
    assert len(out) > 10
    assert {plan[user]["action"] for user in out if user in plan} == {"withheld"}
    assert not {email for email in out.values() if email} & set(mails_of(nights, DAYS[0]))


def test_the_books_balance(nights):
    for date in DAYS:
        plan, books, send = nights.sent[date]
        assert plan["rows"] == plan["upsert"] + plan["clear"] + plan["unchanged"] + plan["withheld"]
        assert books["delivered"] + books["cleared"] + books["quarantined"] == plan["upsert"] + plan["clear"]
        assert (send["status"], send["recipients"]) == ("triggered", books["delivered"])
        assert len(mails_of(nights, date)) == books["delivered"]


def test_the_same_day_again_gives_the_same_bytes_and_no_second_send(nights, tmp_path):
    again = Night(tmp_path, nights.shop, nights.provider)
    before = {date: nights.lake.manifest(Partition("recommendations", date, SETTINGS.name)) for date in DAYS}
    for date in DAYS:
        again.build(date, run_id="another run")
        manifest = again.lake.manifest(Partition("recommendations", date, SETTINGS.name))
        assert [entry.sha256 for entry in manifest.files] == [entry.sha256 for entry in before[date].files]
        assert manifest.folder != before[date].folder

    triggers = "SELECT count(*) FROM single_sends WHERE status = 'triggered'"
    upserts = len([exchange for exchange in nights.provider.exchanges if exchange.method == "PUT"])
    assert provider_rows(nights, triggers) == [(len(DAYS),)]
    for date in DAYS:
        nights.build(date, run_id="a retry")
        plan, books, send = nights.send(date, run_id="a retry")
        first_plan, first_books, first_send = nights.sent[date]
        assert (plan["upsert"], books["delivered"]) == (first_plan["upsert"], first_books["delivered"])
        assert send["single_send_id"] == first_send["single_send_id"]
    assert provider_rows(nights, triggers) == [(len(DAYS),)]
    assert len([exchange for exchange in nights.provider.exchanges if exchange.method == "PUT"]) == upserts


def test_no_address_stands_outside_the_users_table(nights):
    """Canary: none of the shop's addresses is in any other file of the lake."""
    looked_at = 0
    for path in Path(nights.lake_uri).rglob("*.parquet"):
        if path.relative_to(nights.lake_uri).parts[0] == "users":
            continue
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        for name in table.column_names:
            if str(table.schema.field(name).type) == "string":
                assert not any("@" in (value or "") for value in table[name].to_pylist()), f"{path} {name}"
                looked_at += 1
    assert looked_at > 100


# Rules that look at the item or the user alone, in the order in which they are tried.
RULES_OF_ITEM_AND_USER = {
    "resources_you_may_like": ("not_in_catalog", "sold_out", "bought", "in_cart", "wishlisted", "seen"),
    "back_in_stock": ("not_in_catalog", "sold_out", "not_back_in_stock", "bought", "in_cart"),
}


@pytest.mark.parametrize("campaign", [CAMPAIGN, RESTOCKED], ids=lambda path: path.stem)
@pytest.mark.parametrize("date", [DAYS[0], DAYS[-1]], ids=str)
def test_every_users_candidates_are_kept_or_dropped_by_a_rule_that_holds(nights, campaign, date):
    """All users: kept + dropped = candidates, and the shop's database says the same of each cited rule."""
    settings, rules = load_campaign(campaign), RULES_OF_ITEM_AND_USER[campaign.stem]
    asked = (nights.shop, dt.datetime.combine(FIRST_DAY, dt.time(), dt.UTC))
    earlier = [RuleOracle(*asked, end_of(day), settings.exclude) for day in DAYS if day < date]
    oracle = RuleOracle(*asked, end_of(date), settings.exclude, earlier)
    explainer = Explainer.open(nights.lake, settings.name, date)
    index, counted, forgotten = explainer.index.to_pylist(), Counter(), 0
    for bucket in range(nights.lake.buckets):
        judged = explainer.judge_bucket(bucket)
        assert judged.is_reproduced
        verdicts, users = judged.verdicts, judged.batch.user_ids.to_pylist()
        kept = {user: [] for user in range(len(users))}
        of_user = Counter()
        for user, item, rule in zip(
            *(x.tolist() for x in (verdicts.user, verdicts.item, verdicts.causes.rule)), strict=True
        ):
            of_user[user] += 1
            name = "kept" if rule == IN_LIST else RULES[rule]
            counted[name] += 1
            if name == "kept":
                kept[user].append(item)
            if name in rules:
                assert oracle.applies(name, users[user], index[item]), (name, users[user], index[item])
            if oracle.forgot(users[user]):
                forgotten += 1
                continue
            for before in rules[: rules.index(name)] if name in rules else rules:
                assert not oracle.applies(before, users[user], index[item]), (before, users[user], index[item])
        assert kept == dict(enumerate(judged.lists["item"].to_pylist()))
        assert of_user == {user: n for user, n in enumerate(candidates_of(judged, explainer)) if n}
    assert counted.total() > (50_000 if campaign is CAMPAIGN else 1_000)
    assert set(rules) <= set(counted) or date == DAYS[0], counted
    assert forgotten < counted.total() / 10


def candidates_of(judged, explainer):
    """How many items each user's own ones bring, counted one by one."""
    table, interest = explainer.shared.table, judged.batch.interest
    if table is None:
        return (interest.indptr[1:] - interest.indptr[:-1]).tolist()
    whole, counts = table.matrix, []
    lists = judged.lists["item"].to_pylist()
    for user in range(interest.shape[0]):
        own = interest.indices[interest.indptr[user] : interest.indptr[user + 1]].tolist()
        near = {i for o in own for i in whole.indices[whole.indptr[o] : whole.indptr[o] + table.near[o]].tolist()}
        deep = {i for o in own for i in whole.indices[whole.indptr[o] : whole.indptr[o + 1]].tolist()}
        # Who has a full list from the near part is ranked over it alone.
        counts.append(len(near) if len(lists[user]) == SETTINGS.slots else len(deep))
    return counts


def test_an_explanation_adds_up_and_has_no_address(nights):
    explainer = Explainer.open(nights.lake, SETTINGS.name, DAYS[-1])
    addresses, looked_at = address_of_users(nights), 0
    for row in nights.rows("recommendations", DAYS[-1])[:: USERS // 40]:
        found = explainer.explain(row["user_id"])
        assert [explainer.index[item].as_py() for item in row["item"]] == [kept.item_id for kept in found.kept]
        assert found.candidates == len(found.kept) + len(found.dropped) == found.as_json()["candidates"]
        assert found.notes == ()
        for kept in found.kept:
            total = sum(cause.similarity * cause.weight for cause in kept.because)
            assert kept.score == pytest.approx(total * kept.boost, rel=1e-4)
            looked_at += 1
        text = "\n".join(found.lines())
        assert f"user {row['user_id']}" in text
        assert "@" not in text
        assert addresses.get(row["user_id"], "@") not in text
    assert looked_at > 100


def test_two_campaigns_of_one_day_keep_their_own_content(nights):
    """Both pushed before either is sent: each mail shows what its own campaign recommended."""
    date, other = DAYS[-1], load_campaign(RESTOCKED)
    plan, books, send = nights.send(date, campaign=RESTOCKED)
    assert plan["upsert"] >= books["delivered"] == send["recipients"] > 10
    catalog, addresses = catalog_of(nights, date), address_of_users(nights)
    fields_of = fields_at_provider(nights)
    for settings, prefix in ((SETTINGS, "ryml"), (other, "ryml_stock")):
        lists = {user: items for user, items in shown_lists(nights, date, settings)[0].items() if items}
        assert len(lists) > 10
        for user, items in lists.items():
            fields = fields_of[addresses[user]]
            titles = [catalog[item][0] for item in items]
            assert [fields[f"{prefix}_{slot}_title"] for slot in range(1, len(titles) + 1)] == titles
            assert (fields[f"{prefix}_count"], fields[f"{prefix}_run"]) == (str(len(titles)), date.isoformat())
    both = {user for user, fields in fields_of.items() if fields.get("ryml_stock_count", "0") != "0"}
    assert sum(fields_of[user].get("ryml_count", "0") != "0" for user in both) > 10
    restocked = mails_of(nights, date, other)
    assert len(restocked) == send["recipients"]
    assert set(restocked) == {addresses[user] for user in lists}


def fields_at_provider(night):
    """Each contact's custom fields by name, as the provider holds them now."""
    names = dict(provider_rows(night, "SELECT id, name FROM field_definitions"))
    return {
        email: {names[key]: value for key, value in fields.items()}
        for email, fields in held(night.provider.state_path, "contacts")
    }


def test_the_last_night_met_faults(nights):
    met = {name: count for name, count in nights.faults.items() if name in REQUEST_FAULTS}
    assert sum(met.values()) >= 5, nights.faults
    assert len(met) >= 3, nights.faults


def test_a_preview_is_the_mail_that_was_sent(nights, tmp_path):
    date, addresses = DAYS[-1], address_of_users(nights)
    mails = mails_of(nights, date)
    users = [user for user, address in sorted(addresses.items()) if address in mails][:3]
    assert len(users) == 3
    out = tmp_path / "preview"
    for user in users:
        result = preview_mail.main(
            lake=nights.lake_uri, date=date, run_id="test", campaign=CAMPAIGN, ledger=nights.ledger, user=user, out=out
        )
        fields = {**SENDER, **preview_mail.LINKS, **mails[addresses[user]]}
        template = load_template(date)
        for suffix, content in ((".html", template.html), (".txt", template.text)):
            path = out.with_suffix(suffix)
            assert path.read_text("utf-8") == render(content, fields)
            assert path.stat().st_mode & 0o077 == 0
        assert result["rows"] == int(fields["ryml_count"]) > 0
    with pytest.raises(ConfigError, match="no user of that id"):
        preview_mail.main(
            lake=nights.lake_uri, date=date, run_id="test", campaign=CAMPAIGN, ledger=nights.ledger, user="?", out=out
        )
