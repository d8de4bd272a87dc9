"""`make preview`: one user's mail of a date that this machine has built, as files."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from jobs import preview_mail
from ryml_airflow.stack.run_settings import DEMO_DATE, read_source, work_folder
from schemas.errors import ConfigError

CAMPAIGN = Path("dags") / "campaigns" / "resources_you_may_like.toml"


@dataclass(frozen=True)
class PreviewOptions:
    """What `make preview` was asked for; the same variables as of `make run` find the same lake."""

    root: Path
    source: Path
    users: int
    date: dt.date | None
    lake: str | None
    user: str
    out: Path


def preview(options: PreviewOptions) -> str:
    """Write the files; say where they are.

    Raises: ConfigError if nothing was built here for such a source and size, or there is no such user.
    """
    source = read_source(options.source)
    date = options.date or source.default_date or DEMO_DATE
    work = work_folder(options.root, source, options.users, date, options.lake)
    ledger = work / "ledger.db"
    if not ledger.exists():
        raise ConfigError(
            f"{ledger}: no such file; expected what a night has left. Run one first, with the same USERS, SOURCE and "
            "LAKE: make run"
        )
    result = preview_mail.main(
        lake=options.lake or str(work / "lake"),
        date=date,
        run_id="preview",
        campaign=options.root / CAMPAIGN,
        ledger=f"sqlite:///{ledger}",
        user=options.user,
        out=options.out,
    )
    return f"{result['rows']} items: {result['html']} and {result['text']}"
