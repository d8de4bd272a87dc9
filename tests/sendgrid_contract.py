"""SendGrid's published OpenAPI documents as a judge of requests and answers, by way of openapi-core.

They lie beside the repository, not in it; where they are missing, tests that need them are skipped.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from openapi_core import Config, OpenAPI
from openapi_core.datatypes import RequestParameters
from rehearsal_fixture import Exchange
from werkzeug.datastructures import Headers, ImmutableMultiDict

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "sendgrid-openapi"
DOCUMENTS = (
    "tsg_mc_contacts_v3",
    "tsg_mc_custom_fields_v3",
    "tsg_mc_lists_v3",
    "tsg_mc_singlesends_v3",
    "tsg_mc_stats_v3",
    "tsg_suppressions_v3",
    "tsg_mail_v3",
    "tsg_scheduled_sends_v3",
    "tsg_templates_v3",
    "tsg_recipients_data_erasure_v3",
    "tsg_webhooks_v3",
)
METHODS = ("get", "put", "post", "patch", "delete")
HOST = "https://api.sendgrid.com"


def contract_or_skip() -> "Contract":
    """The contract, or a skip with the reason."""
    if not FOLDER.is_dir():
        pytest.skip(f"SendGrid's OpenAPI documents are not at {FOLDER}")
    return Contract()


class _Request:
    """A request in openapi-core's form."""

    host_url = HOST

    def __init__(self, method: str, path: str, query: str, content_type: str, body: bytes) -> None:
        self.method = method.lower()
        self.path = path
        self.content_type = content_type.split(";")[0] or "application/json"
        self.body = body or None
        headers = Headers({"Authorization": "Bearer key"})
        self.parameters = RequestParameters(query=ImmutableMultiDict(parse_qsl(query)), header=headers)


class _Answer:
    """An answer in openapi-core's form."""

    content_type = "application/json"

    def __init__(self, status: int, body: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.status_code = status
        self.data = body or None


class Contract:
    """Validates against the document that knows method and path."""

    def knows(self, method: str, path: str) -> bool:
        return _operation(method, path) is not None

    def check(self, exchange: Exchange, *, is_request_right: bool = True) -> bool:
        """Validate a request (unless it is meant to be wrong) and its answer; False if the status is not described."""
        found = _operation(exchange.method, exchange.path)
        assert found is not None, f"{exchange.method} {exchange.path} is not in SendGrid's documents"
        name, statuses = found
        request = _Request(exchange.method, exchange.path, exchange.query, exchange.content_type, exchange.body)
        if is_request_right:
            _api(name).validate_request(request)
        if str(exchange.status) not in statuses:
            return False
        if exchange.status == 204:  # some documents give it a schema, which HTTP does not allow
            assert not exchange.answer
            return True
        _api(name).validate_response(request, _Answer(exchange.status, exchange.answer))
        return True


@functools.cache
def _document(name: str) -> dict[str, Any]:
    document: dict[str, Any] = _corrected(json.loads((FOLDER / f"{name}.json").read_text("utf-8")))
    return document


@functools.cache
def _api(name: str) -> OpenAPI:
    # That the documents themselves are right is not what is tested, and takes most of the time.
    return OpenAPI.from_dict(_document(name), config=Config(spec_validator_cls=None))


def _operation(method: str, path: str) -> tuple[str, frozenset[str]] | None:
    """Give the document that describes an operation, and the statuses that it describes."""
    for pattern, operations in _patterns():
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return operations[method.lower()]
    return None


@functools.cache
def _patterns() -> list[tuple[str, dict[str, tuple[str, frozenset[str]]]]]:
    found = []
    for name in DOCUMENTS:
        for path, item in _document(name)["paths"].items():
            pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path))
            operations = {method: (name, frozenset(item[method]["responses"])) for method in METHODS if method in item}
            found.append((pattern, operations))
    # Paths without a parameter win over those with one: singlesends/search is not a single send called "search".
    return sorted(found, key=lambda entry: entry[0].count("[^/]+"))


def _corrected(value: Any) -> Any:
    """Say "nullable" as OpenAPI 3.1 does, and mend what no answer could fulfil.

    The documents declare 3.1 and use 3.0's "nullable". Two schemas describe a job's id as an object where the
    examples show text; a template's id is described as a UUID, and dynamic templates have d- and 32 digits.
    """
    if isinstance(value, list):
        return [_corrected(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    out = {key: _corrected(entry) for key, entry in value.items() if key not in ("example", "examples")}
    if out.pop("nullable", False) is True and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
        if "enum" in out:
            out["enum"] = [*out["enum"], None]
    if out.get("format") == "date-time" and "now" in out.get("description", ""):
        out.pop("format")  # the description of a schedule's send_at allows the word "now"
    if isinstance(variation := out.get("ab_variation"), dict):
        variation.pop("format", None)  # a UUID of a variation, or "all", as every example has it
    if isinstance(job := out.get("job_id"), dict) and job.get("type") == "object":
        out["job_id"] = {"type": "string"}
    if out.get("description") == "The ID of the transactional template.":
        out = {"type": "string"}
    if (out.get("name"), out.get("in")) == ("template_id", "path"):
        out["schema"] = {"type": "string"}
    return out
