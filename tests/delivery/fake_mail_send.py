"""Mail Send at the provider in memory: batches hold only what is due ten minutes later; repeats are not known."""

import json
from collections import Counter

from fake_provider import NO_FAULTS, FakeProvider

from schemas.errors import BadContentMailError, RejectedMailError, TooLargeMailError

HOLD_SECONDS = 600.0
PAUSED_SECONDS = 72 * 3600.0


class FakeMailSend(FakeProvider):
    """See the module. `mailed`: every mail that left, as (address, data); `events`: what a webhook would post."""

    def __init__(self, time, faults=NO_FAULTS, point=lambda name: None):
        super().__init__(time, faults, point)
        self.templates, self.batches, self.holds, self.messages = {}, [], {}, []
        self.mailed, self.events, self.dropped, self.bodies = [], [], set(), []
        self.max_mails = 1_000

    def _advance(self):
        super()._advance()
        now = self.time.at.timestamp()
        for message in self.messages:
            if message["state"] == "waiting" and message["due_at"] <= now:
                self._due(message, now)

    def _due(self, message, now):
        status, since = self.holds.get(message["body"].get("batch_id"), (None, 0.0))
        is_held = status is not None and since + HOLD_SECONDS <= message["due_at"]
        if is_held and status == "cancel":
            message["state"] = "cancelled"
        elif is_held and message["due_at"] + PAUSED_SECONDS <= now:
            message["state"] = "expired"
        elif not is_held:
            message["state"] = "sent"
            for entry in message["body"]["personalizations"]:
                self._mail(message["body"], entry)

    def _mail(self, body, entry):
        (recipient,) = entry["to"]
        address = recipient["email"].lower()
        arguments = {**body.get("custom_args", {}), **entry.get("custom_args", {}), "email": address}
        self.events.append({**arguments, "event": "processed"})
        if address in self.dropped:
            self.events.append({**arguments, "event": "dropped"})
            return
        self.events.append({**arguments, "event": "delivered"})
        self.mailed.append((address, entry["dynamic_template_data"]))

    @property
    def mails_per_address(self):
        """How many mails each address got."""
        return Counter(address for address, _ in self.mailed)

    # Templates

    def find_template(self, name):
        def act():
            return next((key for key, entry in self.templates.items() if entry["name"] == name), None)

        return self._call("find_template", act)

    def ensure_template(self, name, *, version, subject, html, text):
        def act():
            for template_id, template in self.templates.items():
                if template["name"] == name:
                    return template_id
            template_id = f"d-{len(self.templates) + 1}"
            self.templates[template_id] = {"name": name, "version": version, "html": html, "subject": subject}
            return template_id

        return self._call("ensure_template", act)

    def delete_template(self, template_id):
        return self._call("delete_template", lambda: self.templates.pop(template_id, None) and None)

    # Batches

    def create_batch(self):
        def act():
            self.batches.append(f"batch-{len(self.batches) + 1}")
            return self.batches[-1]

        return self._call("create_batch", act)

    def batch_hold(self, batch_id):
        return self._call("batch_hold", lambda: self.holds.get(batch_id, (None,))[0])

    def hold_batch(self, batch_id, hold):
        def act():
            status, since = self.holds.get(batch_id, (None, self.time.at.timestamp()))
            if status == "cancel" and hold == "pause":
                raise RejectedMailError("400: cancelled")
            if status is None and len(self.holds) >= 10:
                raise RejectedMailError("400: at most 10 batches")
            self.holds[batch_id] = (hold, since)

        return self._call("hold_batch", act)

    def release_batch(self, batch_id):
        return self._call("release_batch", lambda: self.holds.pop(batch_id, None) and None)

    def suppress(self, group_id, addresses):
        return self._call("suppress", lambda: self.dropped.update(addresses))

    # Mails

    def send_mails(self, body):
        content = json.loads(body)
        entries = content["personalizations"]

        def act():
            if len(entries) > self.max_mails:
                raise TooLargeMailError("413")
            if any(entry["to"][0]["email"] in self.invalid for entry in entries):
                raise BadContentMailError("400: an address is not valid")
            assert content["batch_id"] in self.batches
            assert content["template_id"] in self.templates
            now = self.time.at.timestamp()
            assert content["send_at"] <= now + 72 * 3600
            self.messages.append({"body": content, "due_at": max(now, content["send_at"]), "state": "waiting"})
            return f"message-{len(self.messages)}"

        self.bodies.append(body)
        answer = self._call("send_mails", act)
        return answer
