# ruff: noqa: E501, RUF001  # tables of values, letters that look like others among them
"""Rows that a shop should never send, made by the thousand: each good row gets a few values out of a list of bad ones.

The lists follow what has broken exports, mails and templates elsewhere. A value is bytes, as a file holds it, or None.
"""

from collections.abc import Mapping
from random import Random
from typing import Final

Value = bytes | None
Row = dict[str, Value]

TEXTS: Final[list[Value]] = [
    None, b"", b" ", b"\xc2\xa0", b"\t", b"\r\n", b"\x00", b"a\x00b", b"null", b"None", b"NaN", b"\\N",
    b"007", b"7", b"7 ", b" 7", b"a", b"A", b"x" * 255, b"x" * 256, b"x" * 10_000, "é".encode() * 128,
    "😀".encode(), "👨‍👩‍👧‍👦".encode(), "\u202egnp.exe".encode(), "e\u0301".encode() * 200, "\ufeffid".encode(), "\u2028".encode(),
    b"\xff", b"\xc3", b"\xed\xa0\x80", b"caf\xe9", b"\xf8\x88\x80\x80\x80",
    b"{{email}}", b"{{#each items}}", b"{{{x}}}", b"[%a%]", b"-tag-", b"%s%n", b"${jndi:ldap://x}",
    b"<script>alert(1)</script>", b"<img onerror=x>", b"javascript:alert(1)", b"'; DROP TABLE events; --", b'"', b"'", b"`",
    b"=cmd|' /C calc'!A0", b"@SUM(1)", b"+1", b"-1", b"../../etc/passwd", b"C:\\x", b"a,b;c|d", b"line\nbreak", b"1e308",
    b"true", b"2026-03-02", "ＦＵＬＬ".encode(), "ß".encode(), "İ".encode(),
]  # fmt: skip
NUMBERS: Final[list[Value]] = [
    None, b"", b" ", b"0", b"-0.0", b"-1", b"1", b"1.5", b"NaN", b"nan", b"inf", b"-Infinity", b"1e308", b"1e-308", b"1e999",
    b"0.1234567891", b"9999999999", b"10000000000", b"9007199254740993", b"9223372036854775808", b"1" * 400, b"0" * 400,
    b"1,99", b"$5", b"5 EUR", b"0x10", b"1_000", b"--1", b"+1", b".5", b"5.", b"true", "١٢".encode(), b"\xff", b"1\x00",
    b"1/2", b"2026-03-02", b"1 2",
]  # fmt: skip
INSTANTS: Final[list[Value]] = [
    None, b"", b"0", b"1772409600", b"1772409600000", b"1970-01-01", b"1970-01-01T00:00:00Z", b"2038-01-19T03:14:08Z",
    b"9999-12-31T23:59:59Z", b"0001-01-01", b"2026-02-29", b"2028-02-29", b"2026-13-01", b"2026-03-32", b"2026-03-02T24:00:00Z",
    b"2026-03-02T23:59:60Z", b"2026-03-29T02:30:00", b"2026-10-25T02:30:00", b"2026-03-02T12:00:00+14:59",
    b"2026-03-02T12:00:00+99:00", b"2026-03-02 12:00", b"02/03/2026", b"2026-3-2", b"2026-W10-1", b"now", b"tomorrow",
    b"2026-03-02T12:00:00.1234567890123Z", b"-2026-03-02", b"+002026-03-02", b"2026-03-02T12:00:00Zjunk", b"\xff",
    b"2999-01-01T00:00:00Z", "２０２６-03-02".encode(), b"2026-03-02T12:00:00 Europe/Berlin", b"NaT", b"2100-02-29",
]  # fmt: skip
FLAGS: Final[list[Value]] = [
    None,
    b"",
    b"2",
    b"maybe",
    b"TRUE",
    b"0.0",
    b"yes ",
    b"on",
    b"\xff",
    b"nan",
    b"-1",
    b"y\x00",
]
EMAILS: Final[list[Value]] = [
    None, b"", b" ", b"a", b"@", b"a@", b"@example.com", b"a@b@example.com", b"a b@example.com", b'"a b"@example.com',
    b"x" * 65 + b"@example.com", b"a@" + b"b." * 130 + b"com", b"a@example.com\r\nBcc: b@example.com", "ü@example.com".encode(),
    "a@bücher.example.com".encode(), b"a@xn--bcher-kva.example.com", b"a@example.com.", b"postmaster@example.com",
    b"<script>@example.com", b"=HYPERLINK(1)@example.com", b"a(b)@example.com", b"\xed\xa0\x80@example.com", b"\xff@example.com",
    b"A@EXAMPLE.COM", "\u212aelvin@example.com".encode(), b"kelvin@example.com", b"a@[127.0.0.1]", b"a@example", b"a@-x.example.com",
    b"a\x00@example.com", "a\u200b@example.com".encode(), b"a" * 50_000 + b"@example.com", b"a." * 20_000, b"a@" + b"a" * 50_000,
]  # fmt: skip

# What a good row of each table holds, and out of which list each of its values goes bad.
GOOD: Final[Mapping[str, Mapping[str, tuple[bytes, list[Value]]]]] = {
    "events": {
        "user_id": (b"user", TEXTS), "item_id": (b"item", TEXTS), "event_type": (b"view", TEXTS),
        "occurred_at": (b"2026-03-02T12:00:00Z", INSTANTS), "quantity": (b"1", NUMBERS), "price": (b"2.50", NUMBERS),
    },
    "catalog": {
        "item_id": (b"item", TEXTS), "title": (b"Lamp", TEXTS), "url": (b"https://shop.example.com/1", TEXTS),
        "image_url": (b"https://shop.example.com/1.png", TEXTS), "category": (b"light", TEXTS), "price": (b"2.50", NUMBERS),
        "currency": (b"EUR", TEXTS), "stock": (b"3", NUMBERS), "rating": (b"4.5", NUMBERS), "color": (b"red", TEXTS),
    },
    "users": {
        "user_id": (b"user", TEXTS), "email": (b"user@example.com", EMAILS), "is_subscribed": (b"true", FLAGS),
        "locale": (b"en-GB", TEXTS), "country": (b"DE", TEXTS),
    },
}  # fmt: skip


def poisoned(table: str, rows: int, seed: int) -> list[Row]:
    """Make rows with one to three bad values each; every value of every list is used before one is used again."""
    draws = Random(f"{table} {seed}")
    columns = GOOD[table]
    queues: dict[str, list[Value]] = {name: [] for name in columns}
    made = []
    for number in range(rows):
        own = f"-{number}".encode()
        row: Row = {
            name: good + own if name in ("user_id", "item_id") else good.replace(b"user@", b"user" + own + b"@")
            for name, (good, _) in columns.items()
        }
        for name in draws.sample(sorted(columns), draws.choice([1, 1, 1, 2, 3])):
            if not queues[name]:
                queues[name] = draws.sample(columns[name][1], len(columns[name][1]))
            row[name] = queues[name].pop()
        made.append(row)
    return made
