"""SendGrid's published OpenAPI documents as a judge of requests and answers.

They lie beside the repository, not in it; where they are missing, tests that need them are skipped.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "sendgrid-openapi"
DOCUMENTS = (
    "tsg_mc_contacts_v3",
    "tsg_mc_custom_fields_v3",
    "tsg_mc_lists_v3",
    "tsg_mc_singlesends_v3",
    "tsg_mc_stats_v3",
    "tsg_suppressions_v3",
)
METHODS = ("get", "put", "post", "patch", "delete")


def contract_or_skip() -> "Contract":
    """The contract, or a skip with the reason."""
    if not FOLDER.is_dir():
        pytest.skip(f"SendGrid's OpenAPI documents are not at {FOLDER}")
    return Contract()


class Contract:
    """Validates against the operation that fits method and path."""

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        for pattern, methods in _operations():
            if re.fullmatch(pattern, path) and method.lower() in methods:
                return methods[method.lower()]
        return None

    def check_request(self, method: str, path: str, body: bytes) -> None:
        operation = self.operation(method, path)
        assert operation is not None, f"{method} {path} is not in SendGrid's documents"
        schema = _schema(operation.get("requestBody"))
        if schema is not None:
            jsonschema.Draft202012Validator(schema).validate(json.loads(body or b"{}"))
        else:
            assert not body, f"{method} {path} takes no body"

    def check_answer(self, method: str, path: str, status: int, body: bytes) -> bool:
        """Validate an answer; False if the documents do not describe that status."""
        operation = self.operation(method, path)
        assert operation is not None, f"{method} {path} is not in SendGrid's documents"
        if str(status) not in operation["responses"]:
            return False
        schema = _schema(operation["responses"][str(status)])
        if schema is not None and status != 204:
            jsonschema.Draft202012Validator(schema).validate(json.loads(body))
        return True


@functools.cache
def _operations() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name in DOCUMENTS:
        document = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
        for path, item in document["paths"].items():
            pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path))
            methods = {method: _resolved(item[method], document) for method in METHODS if method in item}
            found.append((pattern, methods))
    # Paths without a parameter win over those with one: singlesends/search is not a single send called "search".
    return sorted(found, key=lambda entry: entry[0].count("[^/]+"))


def _resolved(value: Any, document: dict[str, Any], depth: int = 0) -> Any:
    """Put what is referred to in its place, and say "nullable" in JSON Schema's way."""
    if isinstance(value, list):
        return [_resolved(entry, document, depth) for entry in value]
    if not isinstance(value, dict) or depth > 20:
        return value
    if "$ref" in value:
        target: Any = document
        for key in value["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        return _resolved(target, document, depth + 1)
    out = {
        key: _resolved(entry, document, depth)
        for key, entry in value.items()
        if key not in ("example", "examples", "description", "format")
    }
    if out.pop("nullable", False) and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out


def _schema(part: Any) -> dict[str, Any] | None:
    content = (part or {}).get("content", {}).get("application/json", {})
    schema = content.get("schema")
    return schema if schema else None
