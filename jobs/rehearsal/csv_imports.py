"""Imports of contacts by file: the request, which gives an address to upload to, and the upload.

As at SendGrid, the upload goes to a signed address of a storage service: with the headers that the answer lists,
without the API key, and as the raw file, not as a form.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.csv_files import SETTABLE, CsvFiles
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.import_jobs import ImportJobs
from jobs.rehearsal.limits import ApiError, Problem

UPLOAD_PATH: Final = "/_uploads/{token}"
# Seen in an answer of SendGrid's (sendgrid-java#692).
UPLOAD_HEADERS: Final = {"x-amz-server-side-encryption": "aws:kms"}


class CsvImports:
    """The requests for file imports of one rehearsal provider."""

    def __init__(self, database: Database, imports: ImportJobs, files: CsvFiles) -> None:
        """Add jobs to `imports`."""
        self._database = database
        self._imports = imports
        self._files = files

    def request(
        self, payload: Any, field_types: Mapping[str, str], host: str, now: datetime, digest: str
    ) -> dict[str, Any]:
        """Answer PUT /v3/marketing/contacts/imports."""
        payload = payload if isinstance(payload, dict) else {}
        mappings, list_ids = payload.get("field_mappings"), payload.get("list_ids") or []
        if payload.get("file_type") != "csv":
            raise limits.bad_request("file_type must be csv", "file_type")
        if not isinstance(mappings, list) or not mappings:
            raise limits.bad_request("field_mappings must be an array with an entry for each column", "field_mappings")
        strange = [entry for entry in mappings if entry is not None and entry not in {*field_types, *SETTABLE}]
        if strange:
            raise limits.bad_request(f"invalid field ids supplied - {', '.join(map(str, strange))}", "field_mappings")
        if not {SETTABLE.get(entry) for entry in mappings}.intersection(limits.IDENTIFIERS):
            raise limits.bad_request("at least one identifier must be mapped", "field_mappings")
        if not isinstance(list_ids, list) or not all(isinstance(list_id, str) for list_id in list_ids):
            raise limits.bad_request("list_ids must be an array of strings", "list_ids")
        lists = self._imports.list_numbers(list_ids)
        with self._database.write() as connection:
            job, job_id = self._imports.add(connection, "upsert", now, digest, lists=lists, is_file_awaited=True)
            token = id_from("upload", job_id)
            connection.execute(
                "UPDATE jobs SET mappings = ?, upload_token = ? WHERE job = ?", (json.dumps(mappings), token, job)
            )
        headers = [{"header": name, "value": value} for name, value in UPLOAD_HEADERS.items()]
        return {"job_id": job_id, "upload_uri": host + UPLOAD_PATH.format(token=token), "upload_headers": headers}

    def upload_path(self, token: str, headers: Mapping[str, str]) -> Path:
        """Give the place of the file that is being uploaded; raises ApiError if a storage service would refuse it."""
        if "authorization" in headers:
            raise limits.bad_request("only one authentication is allowed: the address is signed; leave the key out")
        if any(headers.get(name) != value for name, value in UPLOAD_HEADERS.items()):
            raise ApiError(403, Problem("the signature covers headers that are missing; send all of upload_headers"))
        row = self._database.row("SELECT status FROM jobs WHERE upload_token = ?", (token,))
        if row is None or row["status"] != "awaiting_file":
            raise ApiError(403, Problem("the address is not signed, or was used before"))
        return self._files.path(token)

    def uploaded(self, token: str, now: datetime) -> None:
        """Queue the job of a file that is there."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET status = iif(fault = 'stuck', 'stuck', 'pending'), due_at = ? + due_at - accepted_at "
                "WHERE upload_token = ? AND status = 'awaiting_file'",
                (now.timestamp(), token),
            )
