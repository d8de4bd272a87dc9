"""Erase people for good: they are remembered by a keyed hash, and their contacts are deleted at the provider.

Addresses come one a line on standard input or in a file, never as arguments, which everybody on the machine can read.
May be run again: what is done is done. docs/operations.md says where else people are, and until when.

Reads:  standard input or a file; the newest users up to the date; the provider
Writes: tombstones in the ledger; deletions and erasures at the provider
Run:    python -m jobs.erase_user --lake LAKE --date 2026-11-02 --run-id by-hand < ADDRESSES \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import run
from jobs.delivery.addresses import canonical_address, canonical_addresses
from jobs.delivery.client import ADDRESSES_PER_SEARCH
from jobs.delivery.people_book import bury, hashes_of
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.delivery.sendgrid_account import ADDRESSES_PER_ERASURE, ERASURE_BYTES
from jobs.lake.lake import Lake
from schemas.errors import ConfigError, MailError

USERS_DAYS: Final = 15  # as long as users are kept
_PAUSE_SECONDS: Final = 0.6  # 100 erasures a minute (SendGrid, POST /v3/recipients/erasejob)
_OVERHEAD_BYTES: Final = 3  # quotes and comma
_WAITS_SECONDS: Final = (0.0, 0.5, 2.0, 10.0, 60.0, 120.0)  # a deletion is a job


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = delivery_parser(__doc__)
    parser.add_argument("--addresses", type=Path, help="file with one address a line; standard input without it")
    return parser


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    campaign: Path,
    ledger: str,
    provider: ProviderAddress,
    addresses: Path | None = None,
) -> dict[str, Any]:
    """Erase; return how many addresses, user ids and contacts there were. The campaign is whose provider is used.

    Raises: ConfigError if a line is no address; MailError if contacts are still there after minutes.
    """
    people = read_addresses(addresses.read_text(encoding="utf-8").splitlines() if addresses else sys.stdin)
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return erase(delivery, people)


def read_addresses(lines: Iterable[str]) -> list[str]:
    """Read one address a line, each once; empty lines are none.

    Raises: ConfigError naming the lines, not what is in them.
    """
    found, wrong = [], []
    for number, line in enumerate(lines, start=1):
        address = canonical_address(line)
        if address.count("@") == 1 and not any(character.isspace() for character in address):
            found.append(address)
        elif address:
            wrong.append(str(number))
    if wrong:
        raise ConfigError(f"line {', '.join(wrong)}: expected one e-mail address a line; nobody was erased")
    if not found:
        raise ConfigError("no address was given; expected one a line on standard input or in --addresses FILE")
    return sorted(set(found))


def erase(delivery: Delivery, people: Sequence[str]) -> dict[str, Any]:
    """Remember the people as erased, then delete and erase them at the provider."""
    user_ids = _user_ids(delivery.lake, delivery.run.send_date, people)
    # First: whatever dies after this, they are in no plan and on no list any more.
    bury(
        delivery.ledger,
        {
            "address": hashes_of(delivery.ledger, people, "address"),
            "user": hashes_of(delivery.ledger, user_ids, "user"),
        },
    )
    deleted = _delete_contacts(delivery, people)
    for number, part in enumerate(_erasures(people)):
        if number:
            delivery.timing.sleep(_PAUSE_SECONDS)
        _change(delivery, "erase_recipients", len(part), functools.partial(delivery.provider.erase_recipients, part))
    return {"rows": len(people), "user_ids": len(user_ids), "contacts_deleted": deleted}


def _user_ids(lake: Lake, date: dt.date, people: Sequence[str]) -> list[str]:
    """The ids under which the shop has the addresses: its next export may have them under another address."""
    users = lake.latest("users", up_to=date, days=USERS_DAYS)
    wanted = pa.array(people, pa.string())
    found: list[str] = []
    if users is None:
        return found
    for bucket in range(lake.buckets):
        rows = lake.read(users, bucket=bucket, columns=["user_id", "email"])
        is_meant = pc.is_in(canonical_addresses(rows["email"].combine_chunks()), value_set=wanted)
        found += rows.filter(is_meant)["user_id"].to_pylist()
    return found


def _delete_contacts(delivery: Delivery, people: Sequence[str]) -> int:
    """Delete the contacts, and see that they are gone; return how many there were."""
    calls, seen = delivery.calls(), set[str]()
    for seconds in _WAITS_SECONDS:
        calls.wait(seconds)
        left = []
        for start in range(0, len(people), ADDRESSES_PER_SEARCH):
            part = people[start : start + ADDRESSES_PER_SEARCH]
            ids = [
                one.id for one in calls.repeat(functools.partial(delivery.provider.contacts_by_email, part)).values()
            ]
            if ids:
                _change(
                    delivery, "delete_contacts", len(ids), functools.partial(delivery.provider.delete_contacts, ids)
                )
            left += ids
        seen.update(left)
        if not left:
            return len(seen)
    raise MailError(
        f"{len(left)} contacts are still at the provider after their deletion was asked for. The people are remembered "
        "as erased, and are neither pushed nor mailed; run erase_user again"
    )


def _erasures(people: Sequence[str]) -> Iterator[list[str]]:
    """Cut addresses into parts that one erasure takes, by count and by bytes."""
    part: list[str] = []
    size = 0
    for address in people:
        # Room for the braces and the field's name; characters beyond ASCII are written as they are, in UTF-8.
        more = len(address.encode()) + _OVERHEAD_BYTES
        if part and (len(part) == ADDRESSES_PER_ERASURE or size + more > ERASURE_BYTES - 100):
            yield part
            part, size = [], 0
        part.append(address)
        size += more
    if part:
        yield part


def _change(delivery: Delivery, operation: str, count: int, call: Callable[[], None]) -> None:
    """Make a change that may be repeated, with its entries in the history of calls: counts, no addresses."""
    _, ticket = delivery.calls().write(operation, f"{count} people", call)
    delivery.book.end_call(ticket, "ok", "")


if __name__ == "__main__":
    run(main, arg_parser())
