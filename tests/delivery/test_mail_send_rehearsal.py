"""Mail Send with the real client over HTTP, against the rehearsal provider: its contract, its faults, its events."""

import json
import shutil
import time
from collections import Counter

import pytest
from fake_provider import START, VirtualTime
from mail_night import ERASED, MAIL_CAMPAIGN, UPSERTS, MailNight, is_own, users_of
from rehearsal_fixture import listen, serve
from sendgrid_contract import contract_or_skip
from small_night import RUN, address

from jobs.delivery.ledger import Ledger
from jobs.delivery.mail_book import MailBook
from jobs.delivery.people_book import bury, hashes_of
from jobs.delivery.run_context import Delivery
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.delivery.timing import Timing
from jobs.lake.lake import Lake
from jobs.schedule_send import schedule_send
from jobs.settle_mails import settle_mails
from schemas.errors import BadContentMailError, MailError, RejectedMailError, RetryableMailError

SEND = "/v3/mail/send"
pytestmark = pytest.mark.usefixtures("small", "small_mails")


class ServedTime(VirtualTime):
    """Time that passes by sleeping, and is the provider's as well."""

    def __init__(self, clock):
        super().__init__(START)
        self.clock = clock
        clock.hold()
        clock.set_to(START)

    def sleep(self, seconds):
        super().sleep(seconds)
        self.clock.advance(seconds)

    @property
    def timing(self):
        return Timing(lambda: self.at, lambda: self.seconds, self.sleep)


class ServedNight(MailNight):
    """The same night over HTTP; what was mailed is read out of the provider's mailbox."""

    def __init__(self, base, folder, served):
        shutil.copytree(base, folder)
        self.served, self.time = served, ServedTime(served.provider.clock)
        self.lake = Lake.open(str(folder))
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db", lambda: self.time.at)
        self.client = SendGridProvider(served.api_key, served.host, timeout_seconds=5)
        self.delivery = Delivery(self.lake, MAIL_CAMPAIGN, RUN, self.ledger, self.client, "test", self.time.timing)
        bury(self.ledger, {"user": hashes_of(self.ledger, [ERASED], "user")})

    def run(self):
        for _ in range(20):
            try:
                result = self.steps()
            except MailError:
                self.time.sleep(60)
                continue
            self.finish()
            return result
        raise AssertionError("not done after 20 restarts")

    def finish(self, seconds=7200.0):
        self.time.sleep(seconds)
        self.served.provider.wake()
        self.served.wait_until_idle()

    @property
    def provider(self):
        return Mailed(self.served)


class Mailed:
    """What a MailNight wants to know of its provider."""

    def __init__(self, served):
        mailbox = served.provider
        rows = mailbox.database.rows("SELECT email, message, personalization FROM mails ORDER BY mail")
        self.mailed = []
        for row in rows:
            _, payload = mailbox.mail_send.message(row["message"])
            entry = payload["personalizations"][row["personalization"]]
            self.mailed.append((row["email"], entry["dynamic_template_data"]))

    @property
    def mails_per_address(self):
        return Counter(who for who, _ in self.mailed)


def wait_for_posts(night):
    deadline = time.monotonic() + 20
    while night.served.provider.webhooks.next_due_at() is not None:
        assert time.monotonic() < deadline
        night.time.sleep(5)
        night.served.provider.wake()
        time.sleep(0.02)


def test_a_night_of_mail_send_is_within_the_published_contract(mail_base, tmp_path, rehearsal_server, receiver):
    contract = contract_or_skip()
    url, folder = receiver
    night = ServedNight(mail_base, tmp_path / "lake", rehearsal_server)
    listen(rehearsal_server, url)
    before = len(rehearsal_server.exchanges)
    night.push()
    batch = MailBook(night.ledger, RUN).batch()
    pause = json.dumps({"batch_id": batch.batch_id, "status": "pause"}).encode()
    with pytest.raises(RejectedMailError):  # the same batch is not paused twice, and nothing breaks by it
        night.client._call("POST", "user", "scheduled_sends", body=pause)
    night.finish()
    assert night.provider.mailed == []
    result = schedule_send(night.delivery)
    night.finish()
    assert (result["recipients"], result["status"]) == (len(UPSERTS) - 1, "triggered")
    assert night.differences() == []
    wait_for_posts(night)
    assert settle_mails(night.lake, night.ledger, RUN, [folder])["events_of_run"] == 2 * (len(UPSERTS) - 1)
    night.client.hold_batch(night.client.create_batch(), "cancel")
    night.client.delete_template(batch.template_id)
    night.client.delete_template(batch.template_id)  # gone already is fine
    exchanges = rehearsal_server.exchanges[before:]
    spoken = {(exchange.method, exchange.path.split("/")[2]) for exchange in exchanges}
    both = {(method, part) for method in ("GET", "POST", "DELETE") for part in ("templates", "user")}
    assert spoken >= {("POST", "mail"), *both}
    described = [contract.check(exchange) for exchange in exchanges if "/v3/suppression/" not in exchange.path]
    assert len(described) >= 20
    sent = [json.loads(exchange.body) for exchange in exchanges if exchange.path == SEND]
    assert len(sent) >= 3
    assert all(one["asm"]["group_id"] > 0 and one["batch_id"] == batch.batch_id for one in sent)


def test_the_mail_is_the_one_of_single_sends_with_the_senders_address(mail_base, tmp_path, rehearsal_server):
    night = ServedNight(mail_base, tmp_path / "lake", rehearsal_server)
    night.run()
    with rehearsal_server.http() as api:
        page = api.get("/mailbox/1/html").text
    who, data = night.provider.mailed[0]
    assert is_own(who, data)
    assert data["ryml_1_title"] in page
    assert "Shop, 1 Example Street" in page
    assert "Sender_" not in page
    assert "Rehearsal shop" not in page  # the tags that single sends fill in are filled in by nobody here
    assert "Nothing new today" not in page


@pytest.mark.parametrize("fault", ["drop_after", "drop_before", "error_after", "error_before"])
def test_unknown_mails_are_settled_to_the_truth_of_the_mailbox(mail_base, tmp_path, receiver, fault):
    url, folder = receiver
    with serve(tmp_path / "rehearsal.sqlite") as served:
        night = ServedNight(mail_base, tmp_path / "lake", served)
        listen(served, url)
        script = [{"method": "POST", "path": SEND, "fault": fault}]
        with served.http() as api:
            faults = {"script": script, "duplicate_event": 0.5, "changed_event_id": 0.5, "disordered_event": 0.5}
            assert api.post("/_rehearsal/faults", json=faults).is_success
        night.run()
        assert night.differences() == []
        lost = users_of(night.lake, "unknown")
        assert 1 <= len(lost) <= 2
        wait_for_posts(night)
        night.time.sleep(72 * 3600)
        assert settle_mails(night.lake, night.ledger, RUN, [folder])["unknown_requests"] == 0
        assert night.differences() == []
        assert users_of(night.lake, "unknown") == set()
        mailed = {user for user in UPSERTS if night.provider.mails_per_address[address(user)]}
        assert users_of(night.lake, "delivered") == mailed
        assert bool(lost & mailed) == fault.endswith("after")


def test_the_client_pauses_cancels_and_releases_a_batch_repeatably(rehearsal_server):
    client = SendGridProvider(rehearsal_server.api_key, rehearsal_server.host, timeout_seconds=5)
    batch = client.create_batch()
    assert client.batch_hold(batch) is None
    client.release_batch(batch)  # nothing holds it
    for hold in ("pause", "pause", "cancel", "cancel"):
        client.hold_batch(batch, hold)
        assert client.batch_hold(batch) == hold
    with pytest.raises(RejectedMailError, match="is cancelled"):
        client.hold_batch(batch, "pause")
    assert client.batch_hold(batch) == "cancel"
    client.release_batch(batch)
    assert client.batch_hold(batch) is None
    for _ in range(10):
        client.hold_batch(client.create_batch(), "pause")
    with pytest.raises(BadContentMailError, match="at most 10 batches"):
        client.hold_batch(client.create_batch(), "pause")


def test_a_template_is_written_once_for_each_content(rehearsal_server):
    client = SendGridProvider(rehearsal_server.api_key, rehearsal_server.host, timeout_seconds=5)
    content = {"subject": "Hi", "html": "<p>{{x}}</p>", "text": "{{{x}}}"}
    assert client.find_template("one") is None
    made = client.ensure_template("one", version="a", **content)
    assert client.ensure_template("one", version="a", **content) == made == client.find_template("one")
    posts = [exchange for exchange in rehearsal_server.exchanges if exchange.path.endswith("/versions")]
    assert len(posts) == 1
    client.ensure_template("one", version="b", **content)
    with rehearsal_server.http() as api:
        versions = api.get(f"/v3/templates/{made}").json()["versions"]
    assert [(version["name"], version["active"]) for version in versions] == [("a", 0), ("b", 1)]


def test_an_answer_other_than_202_says_nothing_about_the_mails(rehearsal_server):
    """The sandbox answers 200 and mails nobody; whoever asks must not take that for the 202 of mails that wait."""
    client = SendGridProvider(rehearsal_server.api_key, rehearsal_server.host, timeout_seconds=5)
    body = {
        "from": {"email": "shop@example.com"}, "subject": "x", "content": [{"type": "text/plain", "value": "x"}],
        "personalizations": [{"to": [{"email": "ann@example.com"}]}],
    }  # fmt: skip
    assert len(client.send_mails(json.dumps(body).encode())) == 22
    sandbox = {"mail_settings": {"sandbox_mode": {"enable": True}}}
    with pytest.raises(RetryableMailError, match="answered 200, expected 202") as caught:
        client.send_mails(json.dumps(body | sandbox).encode())
    assert caught.value.may_have_acted
