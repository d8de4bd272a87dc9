"""Wrong ways to use Mail Send, each caught by the test that is named beside it: the measure of the tests."""

import types
from dataclasses import asdict

import numpy as np
import pyarrow.compute as pc
import pytest
import test_mail_send_crashes as crash
import test_mail_send_incidents as incidents
from fake_mail_send import FakeMailSend
from mail_night import MailNight

from jobs import cancel_send, fold_profiles, settle_mails
from jobs.delivery import chunk_rows, mail_engine, push_mails, release_mails, run_batch
from jobs.delivery.ledger import Ledger
from jobs.delivery.mail_bodies import first_message
from jobs.delivery.mail_book import MailBook
from jobs.delivery.mail_engine import Mailer
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.request_book import RequestBook
from schemas.errors import RetryableMailError

pytestmark = pytest.mark.usefixtures("small", "small_mails")


def unknown_is_sent_again(patch):
    """Whoever comes next hands over again what has no answer."""
    resume = Mailer._resume

    def too_eager(self, sheet):
        covered = resume(self, sheet)
        for request in self.book.of_chunk(self.claim.plan.chunk):
            if request.state == "unknown":
                covered[sheet.find(self.files.read(request.receipt)["user_id"])] = False
        return covered

    patch.setattr(Mailer, "_resume", too_eager)


def intent_after_the_call(patch):
    """The request is written down once it was answered."""

    def hand_over(self, sheet, positions):
        token = self.tokens.request(self.claim.plan.chunk, self.claim.epoch, self._next)
        body = first_message(sheet.render(positions[:2]), self.envelope.head(), self.envelope.tail(token))
        sent, rest = positions[: body.stop], positions[body.stop :]
        message_id = self.provider.send_mails(body.content)
        entry = self.files.write(self._name(), sheet.receipt(sent))
        request, ticket = self._intend(body.sha256, body.size, len(sent), asdict(entry))
        self.book.take(request, ticket, message_id)
        return [rest] if len(rest) else []

    patch.setattr(Mailer, "_hand_over", hand_over)


def repeated_at_once(patch):
    """A call without an answer is made once more by the same worker, as for contacts."""
    once = ProviderCalls.make_once

    def twice(self, ticket, call):
        try:
            return once(self, ticket, call)
        except RetryableMailError:
            return call()

    patch.setattr(ProviderCalls, "make_once", twice)


def no_answer_is_a_refusal(patch):
    """A request without an answer counts as not taken."""
    dropped = lambda book, files, request: book._change_all(request)  # noqa: E731
    patch.setattr(MailBook, "_change_all", lambda self, request: _drop(self, request), raising=False)
    patch.setattr(mail_engine, "mark_unknown", dropped)


def _drop(book, request):
    with book.ledger.writing() as connection:
        book._change(connection, request, ("intended",), "dropped", request.receipt, {})


def over_the_limit_is_unknown(patch):
    """A 429 gives its users up."""
    made = RetryableMailError.__init__

    def acted(self, message, *, retry_after_seconds=None, may_have_acted=True):
        made(self, message, retry_after_seconds=retry_after_seconds)

    patch.setattr(RetryableMailError, "__init__", acted)


def no_pause(patch):
    """Mails are handed over to a batch that nothing holds."""
    patch.setattr(FakeMailSend, "hold_batch", lambda *_: None)
    no_look_at_the_pause(patch)


def no_look_at_the_pause(patch):
    """What the ledger says of the pause is believed."""
    patch.setattr(run_batch, "check_hold", lambda *_: None)
    patch.setattr(push_mails, "check_hold", lambda *_: None)


def pause_too_late(patch):
    """The mails are due when the push ends: the pause of the last ones is not promised."""
    patch.setattr(run_batch, "HOLD_MINUTES", 0)


def no_barrier(patch):
    """Nobody waits for the books."""
    patch.setattr(Ledger, "is_reconciled", lambda *_: True)


def never_late(patch):
    """A batch that is due no more leaves."""
    send = incidents.schedule_send
    patch.setattr(incidents, "schedule_send", lambda delivery, not_after=None: send(delivery))


def cancelled_in_the_ledger_alone(patch):
    """The provider is not told."""
    patch.setattr(cancel_send, "cancel_batch", lambda *_: None)


def erased_stay(patch):
    """Nobody is taken out before the release."""
    patch.setattr(release_mails, "withdraw_mails", lambda *_: 0)


def erased_are_handed_over(patch):
    """The ledger is not asked before a mail is made."""
    patch.setattr("jobs.delivery.mail_sheet.erased", lambda ledger: _Nobody())


class _Nobody:
    def has(self, user_ids, addresses):
        return np.zeros(len(user_ids), bool)


def lost_ledger_goes_on(patch):
    """The template at the provider is taken for this ledger's own."""
    patch.setattr(RequestBook, "has_begun", lambda *_: True)


def silence_is_an_answer(patch):
    """Whoever no event names was not mailed, whatever else is missing."""
    patch.setattr(settle_mails, "silence", lambda *_: "not_taken")


def unknown_was_not_mailed(patch):
    """Who may have been mailed gets the same again."""
    patch.setattr(fold_profiles, "MAILED_OUTCOMES", ("delivered",))


def whole_request_for_one_user(patch):
    """One bad address takes its request's users with it."""
    patch.setattr(Mailer, "_halves", lambda self, sheet, request, positions, error: self._drop(request) or [])


def positional_join(patch):
    """Addresses are taken in the order in which they come."""

    def by_position(values, value_set):
        import pyarrow as pa

        return pa.array(np.arange(len(values)))

    patch.setattr(chunk_rows, "pc", types.SimpleNamespace(**{**vars(pc), "index_in": by_position}))


def replaced_worker_forgets(patch):
    """What a replaced worker heard is not written down."""
    take = MailBook.take

    def only_with_the_claim(self, request, ticket, message_id):
        if any(other.epoch > request.epoch for other in self.of_chunk(request.chunk)):
            return
        take(self, request, ticket, message_id)

    patch.setattr(MailBook, "take", only_with_the_claim)


def taken(base, tmp_path, ledger, patch):
    incidents.test_a_death_right_after_the_provider_took_the_mails_repeats_none(base, tmp_path, ledger)


def whole(base, tmp_path, ledger, patch):
    crash.test_a_night_of_mails_without_faults(base, tmp_path, ledger)


def incident(name, *more):
    """Run one test of test_mail_send_incidents with a night of its own, and what else it asks for."""

    def run(base, tmp_path, ledger, patch):
        given = {"monkeypatch": patch, "tmp_path": tmp_path, "ledger": ledger}
        night = MailNight(base, tmp_path / "lake", ledger)
        getattr(incidents, f"test_{name}")(night, *(given.get(one, one) for one in more))

    return run


NEVER_REPEATED = "a_request_without_an_answer_is_never_repeated"
CANCELLED = "a_batch_that_is_cancelled_mails_nobody"
MUTANTS = [
    (unknown_is_sent_again, incident("an_outage_costs_few_users_and_ends_in_a_stop", "monkeypatch")),
    (unknown_is_sent_again, taken),
    (intent_after_the_call, taken),
    (repeated_at_once, incident(NEVER_REPEATED, "tmp_path", True)),
    (no_answer_is_a_refusal, incident(NEVER_REPEATED, "tmp_path", True)),
    (over_the_limit_is_unknown, incident("a_request_over_the_limit_was_not_looked_at_and_comes_again")),
    (no_pause, incident("nothing_leaves_before_the_send_however_late_it_is")),
    (no_look_at_the_pause, incident("a_pause_that_somebody_lifted_stops_the_push")),
    (pause_too_late, incident("every_mail_is_held_for_ten_minutes_at_least")),
    (no_barrier, incident("nothing_is_released_before_the_books_balance")),
    (never_late, incident("nobody_is_mailed_late")),
    (
        cancelled_in_the_ledger_alone,
        incident(CANCELLED, "tmp_path", "after the release"),
    ),
    (erased_stay, incident("who_is_erased_or_unsubscribes_after_the_push_gets_no_mail")),
    (erased_are_handed_over, whole),
    (lost_ledger_goes_on, incident("a_lost_ledger_stops_the_push_and_the_run_is_given_up", "ledger")),
    (silence_is_an_answer, incident("silence_says_nothing_while_events_are_missing", "tmp_path")),
    (unknown_was_not_mailed, incident("who_may_have_been_mailed_counts_as_mailed_until_it_is_settled", "tmp_path")),
    (whole_request_for_one_user, incident("a_refused_address_is_quarantined_alone", "monkeypatch")),
    (positional_join, whole),
    (replaced_worker_forgets, incident("a_worker_that_wakes_up_after_its_replacement_mails_nobody_twice")),
]


@pytest.mark.parametrize(("mutant", "test"), MUTANTS, ids=[f"{n}-{m.__name__}" for n, (m, _) in enumerate(MUTANTS)])
def test_a_wrong_mail_send_is_caught(mail_base, tmp_path, ledger, monkeypatch, mutant, test):
    mutant(monkeypatch)
    caught = None
    try:
        test(mail_base, tmp_path, ledger, monkeypatch)
    except (Exception, pytest.fail.Exception) as error:
        caught = error
    assert caught is not None, mutant.__doc__
    assert not isinstance(caught, TypeError | AttributeError | NameError), f"the mutant itself is broken: {caught!r}"


def test_there_are_enough_mutants_of_mail_send():
    assert len({mutant for mutant, _ in MUTANTS}) >= 12
