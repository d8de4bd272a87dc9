"""Files of contacts that were uploaded for an import, and the reading of them in steps.

gzip is told by a file's first bytes, whatever the upload's headers say.
"""

import csv
import gzip
import io
import itertools
import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from jobs.rehearsal import limits
from jobs.rehearsal.intake import RowError

CONTACTS_PER_FILE: Final = 1_000_000
FILE_BYTES: Final = 5_000_000_000
ROWS_PER_STEP: Final = 5_000  # of one transaction: no other request waits for more than this
SETTABLE: Final = {
    field["id"]: str(field["name"])
    for field in limits.RESERVED_FIELDS
    if field["name"] in (*limits.IDENTIFIERS, *limits.PROFILE_CHARACTERS)
}
_GZIP: Final = b"\x1f\x8b"
_UNREADABLE: Final = (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error)


@dataclass(frozen=True)
class Step:
    """Some rows of a file: as bodies of upserts, each with the positions of its contacts within the step."""

    bodies: Sequence[tuple[bytes, Sequence[int]]]
    errors: Sequence[RowError]
    rows: int
    is_last: bool


class CsvFiles:
    """The uploaded files of one rehearsal provider, which lie beside its state until they are read."""

    def __init__(self, folder: Path) -> None:
        """Keep files in `folder`."""
        self._folder = folder
        self._token = ""
        self._file: Any = None
        self._rows: Any = None
        self._read = 0

    def path(self, token: str) -> Path:
        """Say where the file of an upload belongs."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder / f"{token}.csv"

    def read_step(self, job: sqlite3.Row, field_types: Mapping[str, str]) -> Step:
        """Read the rows after the first `done` ones; raises ApiError if the file as a whole can not be read."""
        mappings = json.loads(job["mappings"])
        done = job["done"]
        try:
            if self._token != job["upload_token"] or self._read != done:
                self._open(job["upload_token"], len(mappings), done)
            rows = list(itertools.islice(self._rows, ROWS_PER_STEP))
        except _UNREADABLE as error:
            raise limits.bad_request(f"the file can not be read as CSV in UTF-8 ({type(error).__name__})") from error
        self._read = done + len(rows)
        if self._read > CONTACTS_PER_FILE:
            raise limits.bad_request(f"at most {CONTACTS_PER_FILE} contacts are allowed in a file")
        contacts: list[dict[str, Any]] = []
        positions: list[int] = []
        errors: list[RowError] = []
        for number, row in enumerate(rows):
            if len(row) != len(mappings):
                errors.append(RowError(done + number, row[0] if row else "", "the row has another number of columns"))
            else:
                contacts.append(_contact(row, mappings, field_types))
                positions.append(number)
        return Step(_bodies(contacts, positions), errors, len(rows), len(rows) < ROWS_PER_STEP)

    def remove(self, job: sqlite3.Row) -> None:
        """Remove the file of a job that has ended, if it has one."""
        if job["upload_token"] is not None:
            self.close()
            self.path(job["upload_token"]).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file that is being read."""
        if self._file is not None:
            self._file.close()
        self._token, self._file, self._rows = "", None, None

    def _open(self, token: str, columns: int, done: int) -> None:
        self.close()
        path = self.path(token)
        with path.open("rb") as file:
            is_gzip = file.read(2) == _GZIP
        # It stays open from step to step; `close` closes it.
        binary: Any = gzip.open(path, "rb") if is_gzip else path.open("rb")  # noqa: SIM115
        self._file = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        self._rows = csv.reader(self._file)
        header = next(self._rows, None)
        if header is None or len(header) != columns:
            raise limits.bad_request("field mapping doesn't match the CSV")
        for _ in itertools.islice(self._rows, done):
            pass
        self._token = token


def _bodies(contacts: Sequence[dict[str, Any]], positions: Sequence[int]) -> list[tuple[bytes, Sequence[int]]]:
    """Put contacts that an upsert takes together into one body, and the others into one each, to be refused alone."""
    good = [n for n, contact in enumerate(contacts) if _is_acceptable(contact)]
    together = msgspec.json.encode({"contacts": [contacts[n] for n in good]})
    bodies: list[tuple[bytes, Sequence[int]]] = [(together, [positions[n] for n in good])]
    rest = sorted(set(range(len(contacts))) - set(good))
    bodies += [(msgspec.json.encode({"contacts": [contacts[n]]}), [positions[n]]) for n in rest]
    return bodies if good else bodies[1:]


def _is_acceptable(contact: Mapping[str, Any]) -> bool:
    most = limits.IDENTIFIER_CHARACTERS | limits.PROFILE_CHARACTERS
    return any(contact.get(name) for name in limits.IDENTIFIERS) and all(
        len(value) <= (most[name] or len(value)) for name, value in contact.items() if name in most
    )


def _contact(row: Sequence[str], mappings: Sequence[str | None], field_types: Mapping[str, str]) -> dict[str, Any]:
    contact: dict[str, Any] = {}
    custom: dict[str, Any] = {}
    for value, field in zip(row, mappings, strict=True):
        if field in SETTABLE:
            if value:
                contact[SETTABLE[field]] = value
        elif field is not None:
            custom[field] = _number(value) if field_types.get(field) == "Number" else value
    return {**contact, "custom_fields": custom} if custom else contact


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
