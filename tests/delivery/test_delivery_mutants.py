"""Wrong deliveries, each caught by the test that is named beside it: the measure of the tests."""

import contextlib
import re
import time
import types

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import small_night
import test_crash_points as crash
import test_csv_rows as csv_tests
import test_delivery_incidents as incidents
import test_push_by_file as by_file
import test_read_ahead as ahead
import test_withdraw as withdraw
from small_night import Night

from jobs import schedule_send
from jobs.delivery import (
    carriers,
    chunk_lease,
    chunk_push,
    chunk_rows,
    chunk_sheet,
    csv_file,
    csv_rows,
    engine,
    read_back,
    shared_pace,
)
from jobs.delivery.carriers import FileImports
from jobs.delivery.chunk_reader import ChunkReader
from jobs.delivery.engine import Pusher
from jobs.delivery.ledger import Ledger
from jobs.delivery.mail_template import load_template
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.request_book import RequestBook
from schemas.errors import BadContentMailError, RetryableMailError

pytestmark = pytest.mark.usefixtures("small")


def cursor_before_confirm(patch):
    """What was only meant to be sent counts as sent."""
    resume = Pusher._resume

    def too_trusting(self, sheet):
        covered = resume(self, sheet)
        for request in self.book.of_chunk(self.claim.plan.chunk):
            covered[sheet.find(self.files.read(request.receipt)["user_id"])] = True
        return covered

    patch.setattr(Pusher, "_resume", too_trusting)


def accepted_is_done(patch):
    """202 is taken for stored."""
    patch.setattr(Pusher, "_finish", lambda self, sheet, one: self._confirm(sheet, one.request, one.positions))


def blind_create_and_schedule(patch):
    """Every try makes a single send of its own and schedules it."""

    def blind(delivery):
        template, name = load_template(delivery.run.send_date), delivery.campaign.send_name(delivery.run.send_date)
        made = delivery.provider.create_draft(
            name=name, list_id=delivery.ledger.list_id(delivery.run), subject="Hi", html=template.html,
            text=template.text, suppression_group_id=1, sender_id=1,
        )  # fmt: skip
        delivery.provider.schedule(made.id)

    patch.setattr(small_night, "schedule_send", blind)


def omitted_slots(patch):
    """Empty slots are left out, as if the provider cleared what an update omits."""
    render = chunk_sheet.render_contacts

    def leave_out(**options):
        rows = render(**options).to_pylist()
        return pa.array([re.sub(r',"e\d+_T":""', "", row) for row in rows])

    patch.setattr(chunk_sheet, "render_contacts", leave_out)


def positional_join(patch):
    """Addresses are taken in the order in which they come."""

    def by_position(values, value_set):
        return pa.array(np.arange(len(values)))

    patch.setattr(chunk_rows, "pc", types.SimpleNamespace(**{**vars(pc), "index_in": by_position}))


def no_fence(patch):
    """Nobody looks whether a worker was replaced."""
    patch.setattr(Ledger, "check_epoch", lambda *_: None)


def no_look_before_the_wire(patch):
    """A worker that slept sends what it had in its hands."""
    patch.setattr(ProviderCalls, "_beat", lambda *_: None)


def newest_catalog_at_each_try(patch):
    """A retry renders anew: a request that was never answered and its repetition differ."""
    patch.setattr(Ledger, "pin_catalog", lambda self, run, claim, manifest: manifest)


def lost_ledger_goes_on(patch):
    """What the provider has is taken for this ledger's own."""
    patch.setattr(RequestBook, "has_begun", lambda *_: True)


def errored_is_completed(patch):
    """Rows that a job refused count as stored."""
    patch.setattr(Pusher, "_refused", lambda self, sheet, job, positions: positions[:0])


def one_try_a_row(patch):
    """Rows that are fine are quarantined for the provider's hiccup."""
    patch.setattr(engine, "_ROW_TRIES", 1)


def cleared_join_the_list(patch):
    """Who has nothing is mailed all the same."""
    made = chunk_sheet.Sheet
    patch.setattr(chunk_sheet, "Sheet", lambda **given: made(**{**given, "lanes": (given["lanes"][0],) * 2}))


def pace_of_each_process(patch):
    """Every process leaves as if it were alone."""
    patch.setattr(shared_pace, "reserve", lambda connection, ledger, *_: shared_pace.Slot(ledger.now_seconds(), 0))


def no_deadline(patch):
    """The push goes on for as long as it takes."""
    patch.setattr(ProviderCalls, "is_late", property(lambda _: False))


def whole_request_for_one_row(patch):
    """One bad row quarantines its request."""

    def give_up(self, sheet, request, positions, tries, error):
        self._confirm(sheet, request, positions, positions, "refused_request")

    patch.setattr(Pusher, "_halve", give_up)


def send_without_barrier(patch):
    """Nobody waits for the books."""
    patch.setattr(Ledger, "is_reconciled", lambda *_: True)


def no_lease(patch):
    """A chunk is taken from a worker that lives."""
    patch.setattr(chunk_lease, "LEASE_SECONDS", 0.0)


def a_first_sight_counts_whatever_came_since(patch):
    """A worker that gave a sign of life while the next one loaded is taken for dead."""
    look = chunk_lease._look

    def since_the_first(ledger, run, chunk, timing, before=None):
        now = look(ledger, run, chunk, timing)
        return chunk_lease.Sight(now.holder, before.since) if before else now

    patch.setattr(chunk_lease, "_look", since_the_first)


def the_lease_begins_with_the_claim(patch):
    """What was seen before the loading counts for nothing."""
    take = chunk_push.take_chunk
    patch.setattr(chunk_push, "take_chunk", lambda *of, meanwhile, seen=None: take(*of, meanwhile=meanwhile))


def what_was_read_ahead_stays(patch):
    """What was read while another worker had the chunk is pushed, whatever changed since."""
    read = ChunkReader.read
    patch.setattr(ChunkReader, "read", lambda self, claim: self._ahead[1] if self._ahead else read(self, claim))


def fields_are_asked_for_ahead(patch):
    """Who waits asks the provider already."""
    read_ahead = ChunkReader.read_ahead

    def too_early(self):
        read_ahead(self)
        self._delivery.provider.ensure_fields([])

    patch.setattr(ChunkReader, "read_ahead", too_early)


def never_late(patch):
    """A send that is due no more leaves."""
    send = schedule_send.schedule_send
    patch.setattr(incidents, "schedule_send", lambda delivery, not_after=None: send(delivery))


def suppress_once(patch):
    """Who may not be mailed is asked before the plan, and not again."""
    patch.setattr(schedule_send, "withdraw", lambda *_: 0)


def unquoted_quotes(patch):
    """A quote in a cell ends it."""
    patch.setattr(csv_rows, "_cell", lambda text: f'"{text}"')


def json_in_cells(patch):
    """Cells keep the escapes of JSON."""
    patch.setattr(csv_rows, "csv_cells", lambda texts: texts)


def columns_in_another_order(patch):
    """The import is told of other columns than the file has."""
    names = chunk_sheet.content_fields
    patch.setattr(chunk_sheet, "content_fields", lambda slots: names(slots)[::-1])


def uploaded_or_not(patch):
    """An import counts as accepted once it was asked for, whatever became of its file."""

    def trusting(self, load, sheet, lane, ticket):
        fields = [field_id for field_id, _ in sheet.columns[lane]]
        place, _ = self.calls.attempt(
            "request_import", ticket.subject, lambda: self.provider.request_import(fields, sheet.lanes[lane]), ticket
        )
        with contextlib.suppress(RetryableMailError):
            self.provider.upload_import(place, load.parts(), load.size)
        return place.job_id, ticket

    patch.setattr(FileImports, "hand_over", trusting)


def the_same_place_again(patch):
    """An upload that failed is tried again where it failed."""

    def stubborn(self, load, sheet, lane, ticket):
        fields = [field_id for field_id, _ in sheet.columns[lane]]
        place, asked = self.calls.attempt(
            "request_import", ticket.subject, lambda: self.provider.request_import(fields, sheet.lanes[lane]), ticket
        )
        self.book.end_call(asked, "ok", place.job_id)
        put = lambda: self.provider.upload_import(place, load.parts(), load.size)  # noqa: E731
        return place.job_id, self.calls.write("upload_import", ticket.subject, put)[1]

    patch.setattr(FileImports, "hand_over", stubborn)


def method_of_the_file(patch):
    """Each worker pushes as the campaign's file says when it starts."""
    patch.setattr(Ledger, "method", lambda self, run: small_night.CAMPAIGN.push.method)


def begun_and_changed(patch):
    """The method of a plan changes while it is pushed."""
    freeze = Ledger.freeze_plan

    def changes(self, run, *arguments, **options):
        found = freeze(self, run, *arguments, **options)
        with self.writing() as connection:
            connection.exec_driver_sql("UPDATE plans SET method = ?", (options.get("method", "contacts"),))
        return found

    patch.setattr(Ledger, "freeze_plan", changes)


def no_signs_of_life(patch):
    """Whoever packs or uploads a file says nothing for as long as it takes."""
    patch.setattr(ProviderCalls, "stay_alive", lambda _: None)


def any_reading_is_right(patch):
    """An import that read a tenth of the rows is done."""
    patch.setattr(FileImports, "has_read_all", lambda *_: True)


def files_are_halved(patch):
    """An import that is refused is taken for one with a bad row in it."""
    patch.setattr(carriers, "RejectedMailError", BadContentMailError)


def uploads_without_pace(patch):
    """Only the API's requests are counted."""
    attempt = ProviderCalls.attempt

    def hurried(self, operation, *arguments):
        pace, self.requests_per_second = self.requests_per_second, self.requests_per_second
        if operation == "upload_import":
            self.requests_per_second = None
        try:
            return attempt(self, operation, *arguments)
        finally:
            self.requests_per_second = pace

    patch.setattr(ProviderCalls, "attempt", hurried)


def packed_with_the_time(patch):
    """A file says when it was made, as those of most programs do."""
    parts = csv_file.CsvFile.parts

    def dated(self):
        content = b"".join(parts(self))
        yield content[:4] + int(time.time()).to_bytes(4, "little") + content[8:]

    patch.setattr(csv_file.CsvFile, "parts", dated)


def left_overs_are_fine(patch):
    """Who reads contacts back looks at what was written, and not at what should be gone."""
    patch.setattr(read_back, "_EMPTY", _Everything())


class _Everything:
    def __contains__(self, _value):
        return True


def dies(base, tmp_path, ledger, patch):
    crash.test_a_night_that_dies_at_any_point_ends_as_one_that_does_not(base, tmp_path, ledger, None)


def dies_under_faults(base, tmp_path, ledger, patch):
    crash.test_a_night_that_dies_at_any_point_ends_as_one_that_does_not(base, tmp_path, ledger, 1)


def dies_by_file(base, tmp_path, ledger, patch):
    def from_the_first_file_on(points):
        return range(points.index("request_import was acted upon"), len(points))

    crash.die_at_points(base, tmp_path, ledger, None, "csv_import", from_the_first_file_on)


def whole(base, tmp_path, ledger, patch):
    crash.test_a_night_without_faults(base, tmp_path, ledger, "contacts")


def whole_by_file(base, tmp_path, ledger, patch):
    crash.test_a_night_without_faults(base, tmp_path, ledger, "csv_import")


def nasty(base, tmp_path, ledger, patch):
    csv_tests.test_a_file_of_everything_that_is_nasty_says_what_the_json_says()


def same_bytes(base, tmp_path, ledger, patch):
    csv_tests.test_the_same_rows_are_the_same_bytes_at_any_time(patch)


def left_over(base, tmp_path, ledger, patch):
    by_file.test_an_item_of_yesterday_in_a_slot_that_is_empty_stops_the_send(base, tmp_path, ledger, "csv_import")


def file_test(name, *fixtures):
    """Run one test of test_push_by_file with a night, and what else it asks for."""

    def run(base, tmp_path, ledger, patch):
        night = Night(base, tmp_path / "night", ledger, method="csv_import")
        getattr(by_file, f"test_{name}")(night, *(patch for _ in fixtures))

    return run


def reads_ahead(name, **options):
    """Run one test of test_read_ahead."""

    def run(base, tmp_path, ledger, patch):
        night = Night(base, tmp_path / "night", ledger)
        getattr(ahead, f"test_{name}")(night, ahead.watch(night, patch), **options)

    return run


def leaves(base, tmp_path, ledger, patch):
    withdraw.test_who_leaves_before_the_last_look_is_not_mailed_whatever_the_moment(base, tmp_path, ledger)


def incident(name, *fixtures):
    """Run one test of test_delivery_incidents with the fixtures that it asks for."""

    def run(base, tmp_path, ledger, patch):
        given = {"base": base, "tmp_path": tmp_path, "ledger": ledger, "monkeypatch": patch}
        if "night" in fixtures:
            given["night"] = Night(base, tmp_path / "night", ledger)
        named = [one if isinstance(one, tuple) else (one, given[one]) for one in fixtures]
        getattr(incidents, f"test_{name}")(**dict(named))

    return run


MUTANTS = [
    (cursor_before_confirm, dies),
    (accepted_is_done, dies_under_faults),
    (blind_create_and_schedule, dies),
    (omitted_slots, whole),
    (positional_join, whole),
    (cleared_join_the_list, whole),
    (no_fence, incident("a_worker_that_wakes_after_its_replacement_sends_nothing", "night", "monkeypatch")),
    (no_fence, incident("a_worker_of_yesterday_that_wakes_today_sends_nothing", "night", "monkeypatch")),
    (
        no_look_before_the_wire,
        incident("a_worker_that_wakes_after_its_replacement_sends_nothing", "night", "monkeypatch"),
    ),
    (
        newest_catalog_at_each_try,
        incident("a_resumed_chunk_sends_the_same_bytes_although_the_catalog_changed", "base", "tmp_path", "ledger"),
    ),
    (lost_ledger_goes_on, incident("a_lost_ledger_stops_the_push", "night", "ledger")),
    (lost_ledger_goes_on, incident("a_ledger_from_before_the_send_stops_the_second_send", "night", "ledger")),
    (
        errored_is_completed,
        incident(
            "poisoned_and_invalid_users_are_quarantined_and_everybody_else_is_mailed", "base", "tmp_path", "ledger"
        ),
    ),
    (
        one_try_a_row,
        incident("rows_that_a_job_refuses_are_tried_again_and_quarantined_alone", "tmp_path", "ledger", "monkeypatch"),
    ),
    (pace_of_each_process, incident("the_rate_is_used_and_never_exceeded_across_fifty_restarts", "ledger")),
    (no_deadline, incident("two_hours_of_500s_expire_what_is_not_pushed", "base", "tmp_path", "ledger")),
    (
        whole_request_for_one_row,
        incident(
            "one_bad_row_of_thirty_thousand_costs_at_most_forty_requests",
            "tmp_path",
            "ledger",
            "monkeypatch",
            ("where", 12_345),
        ),
    ),
    (send_without_barrier, incident("nothing_is_sent_before_the_books_balance", "night")),
    (no_lease, incident("a_chunk_whose_worker_lives_is_not_taken", "night")),
    (
        a_first_sight_counts_whatever_came_since,
        reads_ahead("a_sign_of_life_after_the_first_sight_begins_the_lease_anew"),
    ),
    (the_lease_begins_with_the_claim, reads_ahead("the_lease_runs_from_the_first_sight", loading=3.3)),
    (what_was_read_ahead_stays, reads_ahead("who_reads_ahead_pushes_what_is_there_when_the_chunk_is_its_own")),
    (fields_are_asked_for_ahead, reads_ahead("what_a_dead_worker_left_is_read_before_its_lease_ends")),
    (never_late, incident("nobody_is_mailed_late", "night")),
    (suppress_once, leaves),
    (unquoted_quotes, nasty),
    (json_in_cells, nasty),
    (columns_in_another_order, whole_by_file),
    (cursor_before_confirm, dies_by_file),
    (uploaded_or_not, file_test("an_upload_that_nobody_answered_goes_to_another_place", "monkeypatch")),
    (the_same_place_again, file_test("an_upload_that_nobody_answered_goes_to_another_place", "monkeypatch")),
    (method_of_the_file, file_test("the_method_is_the_plans_whatever_the_campaigns_file_says")),
    (begun_and_changed, file_test("the_method_of_a_plan_that_was_begun_stays")),
    (no_signs_of_life, file_test("a_worker_that_is_replaced_during_its_upload_stops_in_the_middle", "monkeypatch")),
    (no_signs_of_life, file_test("a_worker_that_packs_for_long_gives_signs_of_life", "monkeypatch")),
    (any_reading_is_right, file_test("a_file_that_was_read_in_another_way_is_not_taken_for_stored", "monkeypatch")),
    (files_are_halved, file_test("an_import_that_is_refused_is_not_taken_apart", "monkeypatch")),
    (uploads_without_pace, file_test("each_call_of_a_file_keeps_the_pace")),
    (packed_with_the_time, same_bytes),
    (left_overs_are_fine, left_over),
]


@pytest.mark.parametrize(("mutant", "test"), MUTANTS, ids=[f"{n}-{m.__name__}" for n, (m, _) in enumerate(MUTANTS)])
def test_a_wrong_delivery_is_caught(base, tmp_path, ledger, monkeypatch, mutant, test):
    mutant(monkeypatch)
    caught = None
    try:
        test(base, tmp_path, ledger, monkeypatch)
    except (Exception, pytest.fail.Exception) as error:
        caught = error
    assert caught is not None, mutant.__doc__
    assert not isinstance(caught, TypeError | AttributeError | NameError), f"the mutant itself is broken: {caught!r}"


def test_there_are_enough_mutants():
    assert len({mutant for mutant, _ in MUTANTS}) >= 12
