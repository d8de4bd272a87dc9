"""The campaigns of a night by another method: copies of their files, in which only the push differs."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from schemas.campaign import load_campaign
from schemas.errors import ConfigError
from schemas.push_method import PushMethod

# Of what mail_send needs and a campaign of contacts does not say. 45 minutes are the example of docs/mail.md.
_MAIL_SEND: Final = {
    "push": {"deadline_minutes": "45"},
    "mail_send": {
        "from_email": '"shop@example.com"',
        "from_name": '"Rehearsal shop"',
        "postal_address": '"1 Example Street, Exampleton"',
    },
}


def write_campaigns(source: Path, folder: Path, method: PushMethod) -> None:
    """Copy each campaign of `source` into `folder`, which is made anew; those of another method get this one.

    A file that cannot be read is copied as it is: its DAG says what is wrong.
    Raises: ConfigError if a file is no campaign any more with this method.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(source.glob("*.toml")):
        copy = folder / path.name
        shutil.copyfile(path, copy)
        try:
            is_other = load_campaign(path).push.method != method
        except ConfigError:
            continue
        if is_other:
            settings = {"push": {"method": f'"{method}"'}}
            if method == "mail_send":
                settings = {"push": settings["push"] | _MAIL_SEND["push"], "mail_send": _MAIL_SEND["mail_send"]}
            text = path.read_text(encoding="utf-8")
            for table, values in settings.items():
                text = "".join(_with(text.splitlines(keepends=True), table, values))
            copy.write_text(text, encoding="utf-8")
            if (found := load_campaign(copy).push.method) != method:
                raise ConfigError(
                    f"{copy}: push.method is {found!r}; expected {method!r}. Give [push] a table in {path}"
                )


def _with(lines: list[str], table: str, values: dict[str, str]) -> Iterable[str]:
    """Set keys of a TOML table; the standard library reads TOML and writes none."""
    is_inside = is_there = False
    new = [f"{key} = {value}\n" for key, value in values.items()]
    for line in lines:
        if line.lstrip().startswith("["):
            is_inside = line.split("#")[0].strip() == f"[{table}]"
            is_there |= is_inside
            yield line
            yield from new if is_inside else ()
        elif not (is_inside and line.partition("=")[0].strip() in values):
            yield line
    if not is_there:
        yield from ["\n", f"[{table}]\n", *new]
