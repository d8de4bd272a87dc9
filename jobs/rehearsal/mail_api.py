"""The part of SendGrid's v3 API beside Marketing Campaigns: Mail Send, templates, erasure, webhooks, the account."""

from jobs.rehearsal import limits
from jobs.rehearsal.calls import Answer, Call, Handler
from jobs.rehearsal.limits import ApiError
from jobs.rehearsal.state import Rehearsal

TEMPLATES_PER_PAGE = 200


def mail_routes(provider: Rehearsal) -> dict[str, dict[str, Handler]]:
    """Map every path to its methods and their handlers."""
    api = _MailApi(provider)
    settings = "/v3/user/webhooks/event/settings"
    return {
        "/v3/mail/send": {"POST": api.send},
        "/v3/mail/batch": {"POST": api.create_batch},
        "/v3/mail/batch/{id}": {"GET": api.batch},
        "/v3/user/scheduled_sends": {"GET": api.held_batches, "POST": api.hold_batch},
        "/v3/user/scheduled_sends/{id}": {
            "GET": api.held_batch,
            "PATCH": api.change_batch,
            "DELETE": api.release_batch,
        },
        "/v3/templates": {"GET": api.templates, "POST": api.create_template},
        "/v3/templates/{id}": {"GET": api.template, "DELETE": api.delete_template},
        "/v3/templates/{id}/versions": {"POST": api.add_version},
        "/v3/recipients/erasejob": {"POST": api.erase},
        "/v3/user/username": {"GET": api.username},
        settings: {"POST": api.create_webhook},
        f"{settings}/all": {"GET": api.webhooks},
        f"{settings}/signed/{{id}}": {"GET": api.public_key, "PATCH": api.sign_webhook},
        f"{settings}/{{id}}": {"GET": api.webhook, "PATCH": api.change_webhook, "DELETE": api.delete_webhook},
    }


class _MailApi:
    def __init__(self, provider: Rehearsal) -> None:
        self._provider = provider

    def send(self, call: Call) -> Answer:
        status, message_id = self._provider.mail_send.send(call.json(), len(call.body), call.now, call.digest)
        self._provider.wake()
        return Answer(status, None, {"X-Message-Id": message_id})

    def create_batch(self, call: Call) -> Answer:
        return Answer(201, {"batch_id": self._provider.mail_send.create_batch()})

    def batch(self, call: Call) -> Answer:
        if not self._provider.mail_send.has_batch(call.path["id"]):
            raise limits.bad_request("invalid batch id", "batch_id")
        return Answer(200, {"batch_id": call.path["id"]})

    def held_batches(self, call: Call) -> Answer:
        return Answer(200, self._provider.mail_send.held_batches())

    def held_batch(self, call: Call) -> Answer:
        return Answer(200, self._provider.mail_send.held_batches(call.path["id"]))

    def hold_batch(self, call: Call) -> Answer:
        asked = _object(call)
        batch_id, status = asked.get("batch_id"), asked.get("status")
        return Answer(201, self._provider.mail_send.hold_batch(batch_id, status, call.now, is_new=True))

    def change_batch(self, call: Call) -> Answer:
        self._provider.mail_send.hold_batch(call.path["id"], _object(call).get("status"), call.now, is_new=False)
        return Answer(204)

    def release_batch(self, call: Call) -> Answer:
        self._provider.mail_send.release_batch(call.path["id"], call.now)
        self._provider.wake()
        return Answer(204)

    def templates(self, call: Call) -> Answer:
        size = call.query.get("page_size", "")
        if not size.isdigit() or not 1 <= int(size) <= TEMPLATES_PER_PAGE:
            raise limits.bad_request(f"page_size must be from 1 to {TEMPLATES_PER_PAGE}", "page_size")
        token = call.query.get("page_token", "0")
        generations = call.query.get("generations", "legacy").split(",")
        found, following = self._provider.templates.page(generations, int(size), int(token) if token.isdigit() else 0)
        own = "https://api.sendgrid.com/v3/templates"
        more = {"next": f"{own}?page_size={size}&page_token={following}"} if following else {}
        return Answer(200, {"result": found, "_metadata": {"self": own, "count": len(found), **more}})

    def create_template(self, call: Call) -> Answer:
        return Answer(201, self._provider.templates.create(call.json(), call.now))

    def template(self, call: Call) -> Answer:
        return Answer(200, self._provider.templates.get(call.path["id"]))

    def delete_template(self, call: Call) -> Answer:
        self._provider.templates.delete(call.path["id"])
        return Answer(204)

    def add_version(self, call: Call) -> Answer:
        return Answer(201, self._provider.templates.add_version(call.path["id"], call.json(), call.now))

    def erase(self, call: Call) -> Answer:
        job_id = self._provider.erasures.queue(call.json(), len(call.body), call.now)
        self._provider.wake()
        return Answer(202, {"job_id": job_id})

    def username(self, call: Call) -> Answer:
        behaviour = self._provider.behaviour
        return Answer(200, {"username": behaviour.username, "user_id": behaviour.user_id})

    def create_webhook(self, call: Call) -> Answer:
        return Answer(201, self._provider.webhooks.create(call.json(), call.now))

    def webhooks(self, call: Call) -> Answer:
        found = self._provider.webhooks.all()
        return Answer(200, {"max_allowed": max(1, len(found)), "webhooks": found})

    def webhook(self, call: Call) -> Answer:
        return Answer(200, self._provider.webhooks.get(call.path["id"]))

    def change_webhook(self, call: Call) -> Answer:
        return Answer(200, self._provider.webhooks.change(call.path["id"], call.json(), call.now))

    def delete_webhook(self, call: Call) -> Answer:
        self._provider.webhooks.delete(call.path["id"])
        return Answer(204)

    def public_key(self, call: Call) -> Answer:
        return Answer(200, self._provider.webhooks.public_key(call.path["id"]))

    def sign_webhook(self, call: Call) -> Answer:
        is_signed = _object(call).get("enabled")
        if not isinstance(is_signed, bool):
            raise limits.bad_request("enabled must be true or false", "enabled")
        return Answer(200, self._provider.webhooks.sign(call.path["id"], is_signed=is_signed))


def no_credits() -> ApiError:
    """Answer as SendGrid does when the account's credits are used up: with the status of a wrong key."""
    return ApiError(401, limits.Problem("Maximum credits exceeded"), is_field_shown=True)


def _object(call: Call) -> dict[str, object]:
    asked = call.json()
    if not isinstance(asked, dict):
        raise limits.bad_request("the request body must be a JSON object")
    return asked
