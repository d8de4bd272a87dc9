"""The part of SendGrid's v3 API that ryml uses: one handler per operation, each a few lines."""

from typing import Any, Final
from urllib.parse import urlencode

from jobs.rehearsal import limits
from jobs.rehearsal.calls import Answer, Call, Handler
from jobs.rehearsal.controls import Controls
from jobs.rehearsal.mail_api import mail_routes
from jobs.rehearsal.single_sends import STATUSES
from jobs.rehearsal.state import Rehearsal
from jobs.rehearsal.suppressions import GLOBAL_UNSUBSCRIBES, GROUP_UNSUBSCRIBES, LISTED_KINDS

_LAST_SECOND: Final = 10**12
ERRORS_PATH: Final = "/downloads/import-errors/{job_id}.csv"


def routes(provider: Rehearsal) -> dict[str, dict[str, Handler]]:
    """Map every path to its methods and their handlers."""
    api = _Api(provider)
    controls = Controls(provider)
    marketing = "/v3/marketing"
    return {
        f"{marketing}/contacts": {"PUT": api.upsert, "DELETE": api.delete_contacts},
        f"{marketing}/contacts/imports": {"PUT": api.request_import},
        f"{marketing}/contacts/count": {"GET": api.count_contacts},
        f"{marketing}/contacts/imports/{{id}}": {"GET": api.import_job},
        f"{marketing}/contacts/search/emails": {"POST": api.search_emails},
        f"{marketing}/contacts/{{id}}": {"GET": api.contact},
        f"{marketing}/field_definitions": {"GET": api.fields, "POST": api.create_field},
        f"{marketing}/lists": {"GET": api.lists, "POST": api.create_list},
        f"{marketing}/lists/{{id}}": {"GET": api.list_, "PATCH": api.rename_list, "DELETE": api.delete_list},
        f"{marketing}/lists/{{id}}/contacts": {"DELETE": api.remove_from_list},
        f"{marketing}/lists/{{id}}/contacts/count": {"GET": api.count_list},
        f"{marketing}/singlesends": {"GET": api.single_sends, "POST": api.create_single_send},
        f"{marketing}/singlesends/search": {"POST": api.search_single_sends},
        f"{marketing}/singlesends/{{id}}": {
            "GET": api.single_send,
            "PATCH": api.change_single_send,
            "DELETE": api.delete_single_send,
        },
        f"{marketing}/singlesends/{{id}}/schedule": {"PUT": api.schedule, "DELETE": api.unschedule},
        f"{marketing}/stats/singlesends/{{id}}": {"GET": api.stats},
        "/v3/suppression/{kind}": {"GET": api.suppressed},
        "/v3/asm/groups": {"GET": api.groups, "POST": api.create_group},
        "/v3/asm/groups/{group}/suppressions": {"GET": api.group_members, "POST": api.suppress_in_group},
        "/v3/asm/groups/{group}/suppressions/{email}": {"DELETE": api.lift_in_group},
        "/v3/asm/suppressions": {"GET": api.all_group_members},
        "/v3/asm/suppressions/global": {"POST": api.suppress_globally},
        "/v3/asm/suppressions/global/{email}": {"DELETE": api.lift_globally},
        # Not SendGrid's: bounces and complaints come from the world there, and have to come from somewhere here.
        "/_rehearsal/suppression/{kind}": {"POST": api.suppress},
        "/_rehearsal/faults": {"GET": controls.faults, "POST": controls.set_faults},
        "/_rehearsal/clock": {"GET": controls.clock, "POST": controls.move_clock},
        "/_rehearsal/behaviour": {"GET": controls.behaviour, "POST": controls.set_behaviour},
        **mail_routes(provider),
    }


class _Api:
    def __init__(self, provider: Rehearsal) -> None:
        self._provider = provider

    # Contacts

    def upsert(self, call: Call) -> Answer:
        if len(call.body) > limits.REQUEST_BYTES:
            raise limits.too_large()
        imports = self._provider.imports
        job_id = imports.queue(imports.read(call.body, self._provider.fields.types()), call.now, call.digest)
        self._provider.wake()
        return Answer(202, {"job_id": job_id})

    def request_import(self, call: Call) -> Answer:
        types = self._provider.fields.types()
        return Answer(200, self._provider.csv_imports.request(call.json(), types, call.host, call.now, call.digest))

    def delete_contacts(self, call: Call) -> Answer:
        """Delete by ids or all; one of both has to be asked for, or an empty parameter would delete everybody."""
        ids = [one for one in call.query.get("ids", "").split(",") if one]
        is_all = call.query.get("delete_all_contacts", "").lower() == "true"
        if bool(ids) == is_all:
            raise limits.bad_request("either ids or delete_all_contacts=true is required", "ids")
        job_id = self._provider.imports.queue_deletion(None if is_all else ids, call.now, call.url)
        self._provider.wake()
        return Answer(202, {"job_id": job_id})

    def contact(self, call: Call) -> Answer:
        return Answer(200, self._provider.contacts.by_id(call.path["id"], self._provider.fields.names()))

    def count_contacts(self, call: Call) -> Answer:
        count = self._provider.contacts.count()
        return Answer(200, {"contact_count": count, "billable_count": count})

    def import_job(self, call: Call) -> Answer:
        def errors_url(job_id: str) -> str:
            return call.host + ERRORS_PATH.format(job_id=job_id)

        return Answer(200, self._provider.imports.status(call.path["id"], errors_url))

    def search_emails(self, call: Call) -> Answer:
        addresses = _strings(call.json(), "emails")
        if len(addresses) > limits.ADDRESSES_PER_SEARCH:
            raise limits.bad_request(f"at most {limits.ADDRESSES_PER_SEARCH} emails are allowed", "emails")
        found = self._provider.contacts.by_email(addresses, self._provider.fields.names(), call.now)
        return Answer(200, {"result": found})

    # Fields and lists

    def fields(self, call: Call) -> Answer:
        return Answer(200, {**self._provider.fields.listing(), "_metadata": {"self": call.url}})

    def create_field(self, call: Call) -> Answer:
        return Answer(200, {**self._provider.fields.create(call.json()), "_metadata": {"self": call.url}})

    def lists(self, call: Call) -> Answer:
        size = limits.page_size(call.query.get("page_size"), limits.LISTS_PER_PAGE)
        after = limits.whole_number(call.query.get("page_token"), field="page_token", default=0)
        page, following, count = self._provider.lists.page(after, size, call.now)
        result = [_with_self(entry, call) for entry in page]
        return Answer(200, {"result": result, "_metadata": _metadata(call, size, following, count)})

    def create_list(self, call: Call) -> Answer:
        return Answer(201, _with_self(self._provider.lists.create(call.json()), call))

    def list_(self, call: Call) -> Answer:
        return Answer(200, {**self._provider.lists.get(call.path["id"], call.now), "_metadata": {"self": call.url}})

    def rename_list(self, call: Call) -> Answer:
        renamed = self._provider.lists.rename(call.path["id"], call.json(), call.now)
        return Answer(200, {**renamed, "_metadata": {"self": call.url}})

    def delete_list(self, call: Call) -> Answer:
        if call.query.get("delete_contacts", "").lower() == "true":
            raise limits.bad_request("delete_contacts is not part of the rehearsal provider", "delete_contacts")
        self._provider.lists.delete(call.path["id"])
        self._provider.wake()
        return Answer(204)

    def remove_from_list(self, call: Call) -> Answer:
        ids = [one for one in call.query.get("contact_ids", "").split(",") if one]
        if not ids:
            raise limits.bad_request("contact_ids is required", "contact_ids")
        list_id = self._provider.lists.get(call.path["id"], call.now)["id"]
        job_id = self._provider.imports.queue_deletion(ids, call.now, call.url, list_ids=[list_id])
        self._provider.wake()
        return Answer(202, {"job_id": job_id})

    def count_list(self, call: Call) -> Answer:
        count = self._provider.lists.get(call.path["id"], call.now)["contact_count"]
        return Answer(200, {"contact_count": count, "billable_count": count})

    # Single sends

    def create_single_send(self, call: Call) -> Answer:
        return Answer(201, self._provider.single_sends.create(call.json(), call.now))

    def single_sends(self, call: Call) -> Answer:
        return self._page_of_single_sends(call, None, STATUSES, ())

    def search_single_sends(self, call: Call) -> Answer:
        wanted = call.json() if call.body else {}
        name = wanted.get("name") if isinstance(wanted, dict) else ""
        most = limits.SINGLE_SEND_NAME_CHARACTERS
        if name is not None and (not isinstance(name, str) or not 1 <= len(name) <= most):
            raise limits.bad_request(f"name must have 1 to {most} characters", "name")
        statuses = _strings(wanted, "status") if "status" in wanted else STATUSES
        if not set(statuses) <= set(STATUSES):
            raise limits.bad_request(f"status must be of {', '.join(STATUSES)}", "status")
        categories = _strings(wanted, "categories") if "categories" in wanted else ()
        return self._page_of_single_sends(call, name, tuple(statuses), tuple(categories))

    def _page_of_single_sends(
        self, call: Call, name: str | None, statuses: tuple[str, ...], categories: tuple[str, ...]
    ) -> Answer:
        size = limits.page_size(call.query.get("page_size"), limits.SINGLE_SENDS_PER_PAGE)
        offset = limits.whole_number(call.query.get("page_token"), field="page_token", default=0)
        page, count = self._provider.single_sends.page(
            name=name, statuses=statuses, categories=categories, offset=offset, size=size, now=call.now
        )
        following = offset + size if offset + size < count else None
        return Answer(200, {"result": page, "_metadata": _metadata(call, size, following, count)})

    def single_send(self, call: Call) -> Answer:
        return Answer(200, self._provider.single_sends.get(call.path["id"]))

    def change_single_send(self, call: Call) -> Answer:
        return Answer(202, self._provider.single_sends.change(call.path["id"], call.json(), call.now))

    def delete_single_send(self, call: Call) -> Answer:
        self._provider.single_sends.delete(call.path["id"])
        return Answer(204)

    def schedule(self, call: Call) -> Answer:
        scheduled = self._provider.single_sends.schedule(call.path["id"], call.json(), call.now)
        self._provider.wake()
        return Answer(201, scheduled)

    def unschedule(self, call: Call) -> Answer:
        return Answer(200, self._provider.single_sends.unschedule(call.path["id"], call.now))

    def stats(self, call: Call) -> Answer:
        results = self._provider.single_sends.stats(call.path["id"])
        return Answer(200, {"results": results, "_metadata": {"self": call.url, "count": len(results)}})

    # Suppressions

    def suppressed(self, call: Call) -> Answer:
        kind = call.path["kind"]
        if kind not in LISTED_KINDS:
            raise limits.not_found()
        query = call.query
        page = self._provider.suppressions.page(
            kind,
            start_time=limits.whole_number(query.get("start_time"), field="start_time", default=0),
            end_time=limits.whole_number(query.get("end_time"), field="end_time", default=_LAST_SECOND),
            limit=limits.page_size(query.get("limit"), limits.SUPPRESSIONS_PER_PAGE, "limit"),
            offset=limits.whole_number(query.get("offset"), field="offset", default=0),
        )
        return Answer(200, page)

    def suppress(self, call: Call) -> Answer:
        kind = call.path["kind"]
        if kind not in LISTED_KINDS:
            raise limits.not_found()
        addresses = _strings(call.json(), "recipient_emails")
        at = int(call.now.timestamp())
        return Answer(
            201, {"recipient_emails": self._provider.suppressions.add(kind, addresses, at, reason="rehearsed")}
        )

    def suppress_globally(self, call: Call) -> Answer:
        addresses = _strings(call.json(), "recipient_emails")
        stored = self._provider.suppressions.add(GLOBAL_UNSUBSCRIBES, addresses, int(call.now.timestamp()))
        return Answer(201, {"recipient_emails": stored})

    def lift_globally(self, call: Call) -> Answer:
        self._provider.suppressions.remove(GLOBAL_UNSUBSCRIBES, call.path["email"])
        return Answer(204)

    def groups(self, call: Call) -> Answer:
        return Answer(200, self._provider.suppressions.groups())

    def create_group(self, call: Call) -> Answer:
        return Answer(201, self._provider.suppressions.create_group(call.json()))

    def group_members(self, call: Call) -> Answer:
        group = limits.whole_number(call.path["group"], field="group_id", default=0)
        if not self._provider.suppressions.has_group(group):
            raise limits.not_found("group not found")
        return Answer(200, self._provider.suppressions.group_members(group))

    def suppress_in_group(self, call: Call) -> Answer:
        group = limits.whole_number(call.path["group"], field="group_id", default=0)
        addresses, at = _strings(call.json(), "recipient_emails"), int(call.now.timestamp())
        # "Adding to a group that does not exist lands in global" (SendGrid's OpenAPI document of suppressions).
        if self._provider.suppressions.has_group(group):
            stored = self._provider.suppressions.add(GROUP_UNSUBSCRIBES, addresses, at, group=group)
        else:
            stored = self._provider.suppressions.add(GLOBAL_UNSUBSCRIBES, addresses, at)
        return Answer(201, {"recipient_emails": stored})

    def lift_in_group(self, call: Call) -> Answer:
        group = limits.whole_number(call.path["group"], field="group_id", default=0)
        self._provider.suppressions.remove(GROUP_UNSUBSCRIBES, call.path["email"], group=group)
        return Answer(204)

    def all_group_members(self, call: Call) -> Answer:
        return Answer(200, self._provider.suppressions.all_group_members())


def _strings(payload: Any, name: str) -> list[str]:
    """Read an array of strings out of the body."""
    value = payload.get(name) if isinstance(payload, dict) else None
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise limits.bad_request(f"{name} must be an array of strings", name)
    return value


def _with_self(entry: dict[str, Any], call: Call) -> dict[str, Any]:
    return {**entry, "_metadata": {"self": f"{call.url.split('?')[0]}/{entry['id']}"}}


def _metadata(call: Call, size: int, following: int | None, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {"self": call.url, "count": count}
    if following is not None:
        query = urlencode({"page_size": size, "page_token": following})
        metadata["next"] = f"{call.url.split('?')[0]}?{query}"
    return metadata
