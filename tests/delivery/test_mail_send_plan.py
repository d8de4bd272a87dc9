"""Planning a campaign of Mail Send: everybody in full, nobody cleared, no mirror."""

import datetime as dt

import pyarrow as pa
import pytest
from small_night import DATE, YESTERDAY, make_lake, write

from jobs import plan_push
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.mail_template import MailTemplate, load_template, mail_send_template
from schemas.errors import ConfigError
from schemas.layout import Partition
from schemas.mail_send import MailSendSettings
from schemas.tables import MIRROR, RECOMMENDATIONS

pytestmark = pytest.mark.usefixtures("small", "small_mails")
TEXT = """
title = "Spring"
slots = 2
min_items = 1
[mail]
subject = "Hi"
suppression_group = "Recommendations"
[push]
{push}
[mail_send]
from_email = "shop@example.com"
postal_address = "1 Example Street"
"""


@pytest.fixture
def plan(tmp_path, monkeypatch, caplog):
    """Plan the small night as the settings say, after a mirror that knows of contacts; give the plan and its log."""
    monkeypatch.setattr("jobs.spark_session.open_session", lambda name: None)
    monkeypatch.setattr("jobs.spark_session.map_parts", lambda session, work, parts, name: [work(n) for n in parts])
    lake = make_lake(tmp_path / "lake")
    rows = [
        {"user_id": f"user-{n:02}", "item": [n], "score": [1.0], "source": [0], "outcome": "recommended"}
        for n in range(4)
    ]
    write(lake, Partition("recommendations", DATE, "spring"), pa.Table.from_pylist(rows, RECOMMENDATIONS.schema))
    held = [{"user_id": f"user-{n:02}", "item": [n], "send_date": YESTERDAY, "content": n} for n in range(6)]
    write(lake, Partition("mirror", YESTERDAY, "spring"), pa.Table.from_pylist(held, MIRROR.schema))
    monkeypatch.setattr(plan_push, "finished_recommendations", lambda lake, date, name: lake.manifest(
        Partition("recommendations", date, name)))  # fmt: skip

    def run(push):
        path = tmp_path / "spring.toml"
        path.write_text(TEXT.format(push=push), encoding="utf-8")
        caplog.clear()
        with caplog.at_level("INFO"):
            plan_push.main(
                lake=lake.uri, date=DATE, run_id="test", campaign=path, ledger=f"sqlite:///{tmp_path}/ledger.db"
            )
        found = lake.manifest(Partition("chunks", DATE, "spring"))
        return found, {row["user_id"]: row for row in lake.read(found).to_pylist()}, caplog.text

    return run


def test_a_plan_of_mail_send_is_full_and_clears_nobody(plan, tmp_path):
    _, rows, _ = plan("ramp_minutes = 0")
    ledger, run = Ledger(f"sqlite:///{tmp_path}/ledger.db", lambda: dt.datetime.now(dt.UTC)), Run("spring", DATE)
    assert ledger.method(run) == "contacts"
    assert [rows[f"user-{n:02}"]["action"] for n in (3, 4)] == ["upsert", "clear"]
    assert rows["user-03"]["held"] == 3
    mails, rows, log = plan('method = "mail_send"\ndeadline_minutes = 45\nramp_minutes = 0')
    assert ledger.method(run) == "mail_send"
    assert mails.metrics["upsert"] == 4
    assert mails.metrics["clear"] == 0
    assert {row["held"] for row in rows.values()} == {None}
    assert not any(name.startswith("mirror/") for name in mails.inputs)
    assert "nothing is kept at the provider, so everybody's content is sent" in log
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", lambda: dt.datetime.now(dt.UTC))
    digest, _, start_at = ledger.plan(Run("spring", DATE))
    assert digest == mails.content_sha256
    assert ledger.deadline(Run("spring", DATE)) - start_at == dt.timedelta(minutes=45)


def test_the_senders_line_takes_the_place_of_the_tags():
    sender = MailSendSettings(from_email="shop@example.com", from_name="Shop", postal_address=r"1 Example \1 Street")
    template = load_template(DATE)
    made = mail_send_template(template, sender)
    assert r"Shop, 1 Example \1 Street" in made.html
    assert r"Shop, 1 Example \1 Street" in made.text
    assert "Sender_" not in made.html + made.text
    assert "{{{unsubscribe}}}" in made.html
    with pytest.raises(ConfigError, match="Sender_ tags"):
        mail_send_template(MailTemplate("x", template.html.replace("{{Sender_Zip}}", ""), template.text), sender)
