"""An e-mail provider in memory: the port of the delivery stages, with a clock of its own and faults by seed.

It does what the protocol promises and nothing more: imports are jobs that are applied later and in any order, omitted
fields stay, a list grows by what jobs add, a search may be late, a single send mails its list once.
"""

import csv
import datetime as dt
import gzip
import io
import json
import random
from dataclasses import dataclass, field, replace

from jobs.delivery.client import Contact, ImportJob, ImportPlace, SingleSend, SingleSendStats
from jobs.delivery.timing import Timing
from schemas.errors import (
    BadContentMailError,
    NotFoundMailError,
    RejectedMailError,
    RetryableMailError,
    TooLargeMailError,
)

EMAIL_FIELD = "_rf2_T"
START = dt.datetime(2026, 11, 3, 8, tzinfo=dt.UTC)


class VirtualTime:
    """Time that passes only by sleeping."""

    def __init__(self, at=START):
        self.at, self.seconds, self.slept = at, 0.0, []

    def sleep(self, seconds):
        assert seconds >= 0
        self.slept.append(seconds)
        self.seconds += seconds
        self.at += dt.timedelta(seconds=seconds)

    @property
    def timing(self):
        return Timing(lambda: self.at, lambda: self.seconds, self.sleep)


@dataclass(frozen=True)
class Faults:
    """How often what goes wrong; all drawn from one seed."""

    seed: int = 0
    no_answer_before: float = 0.0  # the request never arrived
    no_answer_after: float = 0.0  # it was acted upon
    over_limit: float = 0.0
    job_failed: float = 0.0
    job_errored: float = 0.0  # some rows that are fine are refused once
    job_lost: float = 0.0
    job_lag_seconds: float = 0.5  # at most
    search_lag_seconds: float = 0.0


NO_FAULTS = Faults()


def some_faults(seed):
    return Faults(seed, 0.06, 0.06, 0.03, 0.06, 0.06, 0.02, 3.0, 4.0)


@dataclass
class _Job:
    due_at: float | None  # None: its file has not come
    contacts: list
    list_ids: list
    how: str
    status: str = "pending"
    refused: dict = field(default_factory=dict)


class FakeProvider:
    """See the module. `point` is called when a call was acted upon, before its answer is heard."""

    def __init__(self, time, faults=NO_FAULTS, point=lambda name: None):
        self.time, self.faults, self.point = time, faults, point
        self.random = random.Random(faults.seed)
        self.fields, self.lists, self.contacts, self.groups = {}, {}, {}, {}
        self.jobs, self.sends, self.mails, self.places = {}, {}, {}, {}
        self.calls, self.upserts = [], []
        self.poisoned, self.invalid = set(), set()  # addresses that jobs refuse; that make a request a 400
        self.down = lambda: False
        self.max_contacts = 30_000
        self.suppressed, self.erased = [], []

    # What every call goes through

    def _call(self, name, act):
        self.calls.append((self.time.seconds, name))
        self._advance()
        if self.down():
            raise RetryableMailError(f"{name}: the provider answered 500")
        draw = self.random.random()
        faults = self.faults
        if draw < faults.over_limit:
            raise RetryableMailError(f"{name}: 429", retry_after_seconds=3.0, may_have_acted=False)
        draw -= faults.over_limit
        if draw < faults.no_answer_before:
            raise RetryableMailError(f"{name}: no answer")
        answer = act()
        self.point(f"{name} was acted upon")
        if draw - faults.no_answer_before < faults.no_answer_after:
            raise RetryableMailError(f"{name}: no answer, but it was acted upon")
        return answer

    def _advance(self):
        """Apply what is due: jobs in the order of their lag, which is not that of their requests."""
        waiting = [(job.due_at, number) for number, job in self.jobs.items() if job.status == "pending"]
        due = sorted(pair for pair in waiting if pair[0] is not None)
        for due_at, number in due:
            if due_at <= self.time.seconds:
                self._apply(self.jobs[number])
        for send in list(self.sends.values()):
            if send["send"].status == "scheduled" and send["due_at"] <= self.time.seconds:
                send["send"] = replace(send["send"], status="triggered")
                members = self.lists[send["list_id"]]["members"]
                assert send["send"].id not in self.mails, "a single send mails once"
                self.mails[send["send"].id] = {email: dict(self.contacts[email]) for email in sorted(members)}

    def _apply(self, job):
        if job.how == "failed":
            job.status = "failed"
            return
        for contact in job.contacts:
            email = contact["email"].lower()
            if email in self.poisoned or (job.how == "errored" and self.random.random() < 0.3):
                job.refused[email] = "refused"
                continue
            self.contacts.setdefault(email, {}).update(contact["custom_fields"])
            for list_id in job.list_ids:
                self.lists[list_id]["members"].add(email)
        job.status = "completed" if not job.refused else "errored" if len(job.refused) < len(job.contacts) else "failed"

    def rate_limit(self):
        return None

    # Fields and lists

    def ensure_fields(self, names):
        def act():
            for name in names:
                self.fields.setdefault(name, f"e{len(self.fields) + 1}_T")
            return {name: self.fields[name] for name in names}

        return self._call("ensure_fields", act)

    def ensure_list(self, name):
        def act():
            for list_id, entry in self.lists.items():
                if entry["name"] == name:
                    return list_id
            self.lists[f"list-{len(self.lists) + 1}"] = {"name": name, "members": set()}
            return f"list-{len(self.lists)}"

        return self._call("ensure_list", act)

    def find_list(self, name):
        return self._call(
            "find_list", lambda: next((key for key, entry in self.lists.items() if entry["name"] == name), None)
        )

    def list_size(self, list_id):
        return self._call("list_size", lambda: len(self.lists[list_id]["members"]))

    def delete_list(self, list_id):
        return self._call("delete_list", lambda: self.lists.pop(list_id, None) and None)

    # Contacts

    def upsert(self, body):
        data = json.loads(body)
        contacts = data["contacts"]

        def act():
            if len(contacts) > self.max_contacts:
                raise TooLargeMailError("413")
            if any(contact["email"] in self.invalid for contact in contacts):
                raise BadContentMailError("400: a contact is not valid")
            if any(list_id not in self.lists for list_id in data.get("list_ids", [])):
                raise BadContentMailError("400: no such list")
            how = self._fate()
            number = f"job-{len(self.jobs) + 1}"
            due_at = self.time.seconds + self.random.random() * self.faults.job_lag_seconds
            self.jobs[number] = _Job(due_at, contacts, data.get("list_ids", []), how)
            if how == "lost":
                self.jobs[number].status = "lost"
            return number

        self.upserts.append(([contact["email"] for contact in contacts], body))
        return self._call("upsert", act)

    def email_field(self):
        return self._call("email_field", lambda: EMAIL_FIELD)

    def request_import(self, field_ids, list_ids):
        def act():
            if any(list_id not in self.lists for list_id in list_ids):
                raise BadContentMailError("400: no such list")
            if set(field_ids) - {EMAIL_FIELD, *self.fields.values()}:
                raise BadContentMailError("400: no such field")
            number = f"job-{len(self.jobs) + 1}"
            self.jobs[number] = _Job(None, [], list(list_ids), self._fate())
            self.places[f"place-{number}"] = (number, list(field_ids))
            return ImportPlace(number, f"place-{number}", {})

        return self._call("request_import", act)

    def upload_import(self, place, parts, size):
        content = b"".join(parts)
        assert len(content) == size
        header, *rows = csv.reader(io.StringIO(gzip.decompress(content).decode(), newline=""))

        def act():
            if place.upload_uri not in self.places:
                raise RetryableMailError("403: the place was used")
            number, field_ids = self.places.pop(place.upload_uri)
            assert {len(row) for row in (header, *rows)} == {len(field_ids)}
            contacts = [dict(zip(field_ids, row, strict=True)) for row in rows]
            job = self.jobs[number]
            job.contacts = [{"email": one.pop(EMAIL_FIELD), "custom_fields": one} for one in contacts]
            job.due_at = self.time.seconds + self.random.random() * self.faults.job_lag_seconds
            job.status = "lost" if job.how == "lost" else "pending"

        self.upserts.append(([row[0] for row in rows], content))
        return self._call("upload_import", act)

    def _fate(self):
        draw = self.random.random()
        for kind in ("failed", "errored", "lost"):
            chance = getattr(self.faults, f"job_{kind}")
            if 0 <= draw < chance:
                return kind
            draw -= chance
        return "fine"

    def import_job(self, job_id):
        def act():
            job = self.jobs[job_id]
            if job.status == "lost":
                raise NotFoundMailError("404: job not found")
            return ImportJob(
                job_id,
                job.status,
                len(job.contacts),
                0,
                0,
                len(job.refused),
                f"errors/{job_id}" if job.refused else None,
            )

        return self._call("import_job", act)

    def import_errors(self, errors_url):
        return self._call("import_errors", lambda: dict(self.jobs[errors_url.removeprefix("errors/")].refused))

    def contacts_by_email(self, addresses):
        names = {field_id: name for name, field_id in self.fields.items()}

        def act():
            return {
                email: Contact(
                    email,
                    email,
                    tuple(key for key, entry in self.lists.items() if email in entry["members"]),
                    {names[key]: value for key, value in self.contacts[email].items()},
                )
                for email in addresses
                if email in self.contacts
            }

        return self._call("contacts_by_email", act)

    def remove_from_list(self, list_id, contact_ids):
        def act():
            self.lists[list_id]["members"] -= set(contact_ids)

        return self._call("remove_from_list", act)

    def delete_contacts(self, contact_ids):
        def act():
            for email in contact_ids:
                self.contacts.pop(email, None)
            for entry in self.lists.values():
                entry["members"] -= set(contact_ids)

        return self._call("delete_contacts", act)

    def erase_recipients(self, addresses):
        return self._call("erase_recipients", lambda: self.erased.extend(addresses))

    def account_id(self):
        return self._call("account_id", lambda: 1)

    # Single sends

    def find_single_send(self, name):
        order = {"triggered": 0, "scheduled": 1, "draft": 2}

        def act():
            lag = self.faults.search_lag_seconds
            found = [
                entry
                for entry in self.sends.values()
                if entry["send"].name == name and entry["created_at"] + lag <= self.time.seconds
            ]
            found.sort(key=lambda entry: (order[entry["send"].status], entry["created_at"]))
            return found[0]["send"] if found else None

        return self._call("find_single_send", act)

    def create_draft(self, *, name, list_id, subject, html, text, suppression_group_id, sender_id):
        def act():
            send = SingleSend(f"send-{len(self.sends) + 1}", name, "draft", None)
            self.sends[send.id] = {"send": send, "list_id": list_id, "created_at": self.time.seconds, "html": html}
            return send

        return self._call("create_draft", act)

    def schedule(self, single_send_id, send_at=None):
        def act():
            entry = self.sends[single_send_id]
            if entry["send"].status == "triggered":
                raise RejectedMailError("400: triggered already")
            lag = self.random.random() * 2
            entry.update(send=replace(entry["send"], status="scheduled"), due_at=self.time.seconds + lag)

        return self._call("schedule", act)

    def unschedule(self, single_send_id):
        def act():
            entry = self.sends[single_send_id]
            if entry["send"].status != "scheduled":
                raise RejectedMailError("400: not scheduled")
            entry["send"] = replace(entry["send"], status="draft")

        return self._call("unschedule", act)

    def single_send(self, single_send_id):
        return self._call("single_send", lambda: self.sends[single_send_id]["send"])

    def single_send_stats(self, single_send_id):
        mails = len(self.mails.get(single_send_id, {}))
        return self._call("single_send_stats", lambda: SingleSendStats(mails, mails, 0, 0, 0, 0, 0, 0, 0))

    # Suppressions

    def suppressed_addresses(self, since=None, *, group_id=None):
        kinds = {
            "bounces",
            "invalid_emails",
            "spam_reports",
            "unsubscribes",
            *(["group_unsubscribes"] if group_id else []),
        }
        return iter(self._call("suppressed_addresses", lambda: [one for one in self.suppressed if one[0] in kinds]))

    def ensure_suppression_group(self, name):
        return self._call("ensure_suppression_group", lambda: self.groups.setdefault(name, len(self.groups) + 1))
