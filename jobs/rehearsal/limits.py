"""The provider's documented limits, and its error bodies.

Limits come from SendGrid's OpenAPI documents (tsg_mc_contacts_v3, tsg_mc_custom_fields_v3, tsg_mc_lists_v3,
tsg_mc_singlesends_v3, tsg_suppressions_v3, read at the commit of 2026-01-22) unless a line says otherwise.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

CONTACTS_PER_REQUEST: Final = 30_000
REQUEST_BYTES: Final = 6_000_000  # "6MB"; whether it is 6,291,456 is not documented, so the smaller reading holds here
READ_BYTES: Final = 32_000_000  # a body is read up to here, so that a client gets the 413 and not a broken connection
ADDRESSES_PER_SEARCH: Final = 100
LIST_NAME_CHARACTERS: Final = 100
LISTS_PER_PAGE: Final = (1, 100, 1000)  # least, default, most
CUSTOM_FIELDS: Final = 500
FIELD_NAME_CHARACTERS: Final = 100
FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
FIELD_TYPES: Final = ("Text", "Number", "Date")
TEXT_CHARACTERS: Final = 1000  # of a Text value (SendGrid's documentation sources of 2021, custom-fields.md)
SINGLE_SEND_NAME_CHARACTERS: Final = 100
SINGLE_SENDS_PER_PAGE: Final = (1, 100, 100)  # no bounds are documented; these are the rehearsal's own
LISTS_PER_SINGLE_SEND: Final = 50
CATEGORIES: Final = 10
SUPPRESSIONS_PER_PAGE: Final = (1, 500, 500)
GROUP_NAME_CHARACTERS: Final = 30
GROUP_DESCRIPTION_CHARACTERS: Final = 100

# Contact properties besides identifiers and custom fields, and the most characters of each (None: no limit given).
PROFILE_CHARACTERS: Final[dict[str, int | None]] = {
    "first_name": 50,
    "last_name": 50,
    "address_line_1": 100,
    "address_line_2": 100,
    "city": 60,
    "state_province_region": 50,
    "country": 50,
    "postal_code": None,
}
IDENTIFIER_CHARACTERS: Final = {"email": 254, "phone_number_id": 20, "external_id": 254, "anonymous_id": 254}
IDENTIFIERS: Final = tuple(IDENTIFIER_CHARACTERS)

# Order and read-only marks as in the example answer of GET /v3/marketing/field_definitions, plus the identifiers
# that the contacts document added later.
_SETTABLE: Final = (
    "first_name", "last_name", "email", "alternate_emails", "address_line_1", "address_line_2", "city",
    "state_province_region", "postal_code", "country", "phone_number", "whatsapp", "line", "facebook",
    "unique_name", "phone_number_id", "external_id", "anonymous_id",
)  # fmt: skip
_READ_ONLY: Final = (
    ("email_domains", "Text"),
    ("last_clicked", "Date"),
    ("last_opened", "Date"),
    ("last_emailed", "Date"),
    ("singlesend_id", "Text"),
    ("automation_id", "Text"),
    ("created_at", "Date"),
    ("updated_at", "Date"),
    ("contact_id", "Text"),
)
RESERVED_FIELDS: Final[tuple[dict[str, Any], ...]] = tuple(
    [{"id": f"_rf{n}_T", "name": name, "field_type": "Text"} for n, name in enumerate(_SETTABLE)]
    + [
        {"id": f"_rf{n}_{kind[0]}", "name": name, "field_type": kind, "read_only": True}
        for n, (name, kind) in enumerate(_READ_ONLY, start=len(_SETTABLE))
    ]
)
RESERVED_NAMES: Final = frozenset(str(field["name"]) for field in RESERVED_FIELDS)


@dataclass(frozen=True)
class Problem:
    """One entry of an error body; `field` names the part of the request that is wrong, where there is one."""

    message: str
    field: str | None = None


class ApiError(Exception):
    """An answer other than 2xx, in the provider's form."""

    def __init__(self, status: int, *problems: Problem, is_field_shown: bool = False) -> None:
        """Answer `status`; `is_field_shown` writes a null field out, as the authorisation and rate answers do."""
        super().__init__(f"{status}: {'; '.join(problem.message for problem in problems)}")
        self.status = status
        self.problems = problems
        self.is_field_shown = is_field_shown

    def body(self) -> dict[str, Any]:
        """Give the JSON body: {"errors": [{"message": ..., "field": ...}]}."""
        errors: list[dict[str, str | None]] = []
        for problem in self.problems:
            error: dict[str, str | None] = {"message": problem.message}
            if problem.field is not None or self.is_field_shown:
                error["field"] = problem.field
            errors.append(error)
        return {"errors": errors}


def bad_request(message: str, field: str | None = None) -> ApiError:
    """Refuse a request for one thing that is wrong with it."""
    return ApiError(400, Problem(message, field))


def not_found(message: str = "resource not found") -> ApiError:
    """Answer that there is no such thing."""
    return ApiError(404, Problem(message))


def unauthorized() -> ApiError:
    """Answer as SendGrid does to a key that it does not know."""
    message = "The provided authorization grant is invalid, expired, or revoked"
    return ApiError(401, Problem(message), is_field_shown=True)


def too_large() -> ApiError:
    """Answer that the body is over the limit (SendGrid declares no body for 413 on this path; this one is ours)."""
    return ApiError(413, Problem(f"the request body is larger than {REQUEST_BYTES} bytes"))


def too_many_requests() -> ApiError:
    """Answer as SendGrid does past the rate limit (twilio.com, rate limits page)."""
    return ApiError(429, Problem("too many requests"), is_field_shown=True)


def page_size(value: str | None, bounds: tuple[int, int, int], field: str = "page_size") -> int:
    """Read a page size from a query parameter within (least, default, most)."""
    least, default, most = bounds
    number = whole_number(value, field=field, default=default)
    if not least <= number <= most:
        raise bad_request(f"{field} must be between {least} and {most}", field)
    return number


def whole_number(value: str | None, *, field: str, default: int) -> int:
    """Read a whole number of at most 15 digits that is not negative from a query parameter."""
    if value is None or value == "":
        return default
    if not re.fullmatch(r"[0-9]{1,15}", value):
        raise bad_request(f"{field} must be a whole number", field)
    return int(value)
