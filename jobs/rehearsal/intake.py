"""What is checked of an upsert before it is accepted, and what is left for its job to report.

Two kinds of mistake, as at SendGrid: those that refuse the whole request at once (400), and those of single contacts,
which the import job reports afterwards. Which is which was taken from the OpenAPI document and from reports: unknown
field ids (sendgrid-nodejs#953) and nulls (sendgrid/docs#6323) refuse the request; a value of the wrong type is found by
the job (n8n#3058). That an over-long text and an invalid address are found by the job is this server's reading.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, NamedTuple

from jobs.rehearsal import limits
from jobs.rehearsal.behaviour import Clearing
from jobs.rehearsal.bodies import ADDRESS
from jobs.rehearsal.limits import Problem

PROBLEMS_SHOWN: Final = 50  # of one answer; a body of 30,000 equal mistakes would be answered with megabytes
_ADDRESS: Final = re.compile(rf"{ADDRESS}\Z")
_TO_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_PROPERTIES: Final = frozenset((*limits.IDENTIFIERS, *limits.PROFILE_CHARACTERS, "alternate_emails", "custom_fields"))


class ContactRow(NamedTuple):
    """One valid contact of a request; `position` counts from 0."""

    position: int
    email: str | None
    phone_number_id: str | None
    external_id: str | None
    anonymous_id: str | None
    profile: str
    fields: str


@dataclass(frozen=True)
class RowError:
    """One contact that the job will report as errored."""

    position: int
    identifier: str
    reason: str


@dataclass(frozen=True)
class Intake:
    """A request that is accepted: its lists, its valid contacts, and those that its job will report."""

    list_ids: tuple[str, ...]
    rows: tuple[ContactRow, ...]
    errors: tuple[RowError, ...]

    @property
    def requested(self) -> int:
        """Count the contacts of the request."""
        return len(self.rows) + len(self.errors)

    def moved(self, first: int, positions: Sequence[int]) -> "Intake":
        """Count the contacts from `first` on: the n-th of the request is the positions[n]-th there."""
        rows = tuple(row._replace(position=first + positions[row.position]) for row in self.rows)
        errors = tuple(replace(error, position=first + positions[error.position]) for error in self.errors)
        return Intake(self.list_ids, rows, errors)


def parse_json(body: bytes) -> Any:
    """Read a request's body; raises ApiError 400 if it is not JSON in UTF-8."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise limits.bad_request("the request body is not valid JSON") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_upsert(payload: Any, field_types: Mapping[str, str], clearing: Clearing = "null_refused") -> Intake:
    """Check the body of PUT /v3/marketing/contacts.

    `field_types` is id -> Text, Number or Date of every custom field. Raises ApiError with all problems at once.
    """
    if not isinstance(payload, dict):
        raise limits.bad_request("the request body must be a JSON object")
    contacts = payload.get("contacts")
    if not isinstance(contacts, list) or not contacts:
        raise limits.bad_request("at least one contact is required", "contacts")
    if len(contacts) > limits.CONTACTS_PER_REQUEST:
        raise limits.bad_request(f"at most {limits.CONTACTS_PER_REQUEST} contacts are allowed", "contacts")
    list_ids = payload.get("list_ids") or []
    if not isinstance(list_ids, list) or not all(isinstance(list_id, str) for list_id in list_ids):
        raise limits.bad_request("list_ids must be an array of strings", "list_ids")

    problems: list[Problem] = []
    unknown: dict[str, None] = {}
    rows: list[ContactRow] = []
    errors: list[RowError] = []
    for position, contact in enumerate(contacts):
        found = _check_contact(contact, position, field_types, clearing, problems, unknown)
        if isinstance(found, ContactRow):
            rows.append(found)
        elif isinstance(found, RowError):
            errors.append(found)
    if unknown:
        problems.insert(0, Problem(f"invalid custom field ids supplied - {', '.join(unknown)}", "contacts"))
    if problems:
        raise limits.ApiError(400, *problems[:PROBLEMS_SHOWN])
    return Intake(tuple(dict.fromkeys(list_ids)), tuple(rows), tuple(errors))


def _check_contact(
    contact: Any,
    position: int,
    field_types: Mapping[str, str],
    clearing: Clearing,
    problems: list[Problem],
    unknown: dict[str, None],
) -> ContactRow | RowError | None:
    """Give the contact's row or its error; None after adding to `problems` or `unknown`."""
    where = f"contacts[{position}]"
    if not isinstance(contact, dict):
        problems.append(Problem("a contact must be a JSON object", where))
        return None
    custom = contact.get("custom_fields") or {}
    if not isinstance(custom, dict):
        problems.append(Problem("custom_fields must be a JSON object", f"{where}.custom_fields"))
        return None
    before = len(problems)
    strange = not custom.keys() <= field_types.keys()
    if strange:
        unknown.update(dict.fromkeys(sorted(custom.keys() - field_types.keys())))
    if clearing == "empty_ignored":
        custom = {field: value for field, value in custom.items() if value is not None and value != ""}
    elif clearing == "null_refused" and None in custom.values():
        nulls = [field for field, value in custom.items() if value is None]
        problems.extend(Problem(f'custom field "{field}" cannot be null', where) for field in nulls)
    _check_properties(contact, where, problems)
    identifiers = {name: contact[name] for name in limits.IDENTIFIERS if contact.get(name)}
    if not identifiers:
        wanted = ", ".join(limits.IDENTIFIERS)
        problems.append(Problem(f"at least one identifier is required: {wanted}", where))
    if strange or len(problems) > before:
        return None

    email = identifiers.get("email")
    if email is not None:
        identifiers["email"] = email = email.strip().lower()
    named = str(next(iter(identifiers.values())))
    if email is not None and not _ADDRESS.match(email):
        return RowError(position, named, "email is not valid")
    if reason := _value_error(custom, field_types):
        return RowError(position, named, reason)
    profile = {
        name: contact[name] for name in contact if name in limits.PROFILE_CHARACTERS and contact[name] is not None
    }
    if contact.get("alternate_emails"):
        profile["alternate_emails"] = [address.lower() for address in contact["alternate_emails"]]
    return ContactRow(
        position,
        email,
        identifiers.get("phone_number_id"),
        identifiers.get("external_id"),
        identifiers.get("anonymous_id"),
        _TO_JSON(profile) if profile else "{}",
        _TO_JSON(custom),
    )


def _check_properties(contact: dict[str, Any], where: str, problems: list[Problem]) -> None:
    if not contact.keys() <= _PROPERTIES:
        problems.extend(Problem(f"unknown property {name!r}", where) for name in contact if name not in _PROPERTIES)
    for name, value in contact.items():
        if name == "custom_fields" or value is None or name not in _PROPERTIES:
            continue
        if name == "alternate_emails":
            if not isinstance(value, list) or len(value) > 5 or not all(isinstance(address, str) for address in value):
                problems.append(Problem("alternate_emails must be an array of at most 5 strings", f"{where}.{name}"))
            continue
        most = limits.IDENTIFIER_CHARACTERS.get(name) or limits.PROFILE_CHARACTERS[name]
        if not isinstance(value, str):
            problems.append(Problem(f"{name} must be a string", f"{where}.{name}"))
        elif most is not None and len(value) > most:
            problems.append(Problem(f"length should be less than {most} chars", f"{where}.{name}"))


def _value_error(custom: dict[str, Any], field_types: Mapping[str, str]) -> str | None:
    """Say why the first wrong value of a contact cannot be stored."""
    for field, value in custom.items():
        if value.__class__ is str and len(value) <= limits.TEXT_CHARACTERS and field_types[field] == "Text":
            continue  # nearly all there is: a request of 6 MB has 100,000 values
        kind = field_types[field]
        if value is None:
            continue  # it clears the value: what else it could do was decided before
        if kind == "Text":
            if not isinstance(value, str):
                return f'custom field "{field}" must be text'
            if len(value) > limits.TEXT_CHARACTERS:
                return f'custom field "{field}" is longer than {limits.TEXT_CHARACTERS} characters'
        elif kind == "Number":
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number:
                return f'custom field "{field}" must be a number'
        elif not _is_date(value):
            return f'custom field "{field}" must be a date'
    return None


def _is_date(value: Any) -> bool:
    """Accept YYYY-MM-DD with or without a time, and MM/DD/YYYY."""
    if not isinstance(value, str):
        return False
    text = value
    if match := re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4})", value):
        month, day, year = match.groups()
        text = f"{year}-{month:>02}-{day:>02}"
    try:
        date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True
