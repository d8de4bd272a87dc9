"""What one `make run` was asked to do: which source, which dates, where its files lie, which ports."""

import hashlib
import tomllib
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.push_method import PushMethod

DEMO_SOURCE = "demo_shop"
# The night of the demo where its settings file names none: fixed, so that everybody sees the same figures.
DEMO_DATE = date(2026, 11, 4)
HISTORY_DAYS = 60  # days of the demo shop up to and with its first night; its settings file asks for as many
SHOP_SEED = 7


@dataclass(frozen=True)
class Source:
    """The part of a source's settings file that the launcher needs; the export job reads the rest."""

    path: Path
    name: str
    default_date: date | None
    data_folder: str | None


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run needs to know; all paths absolute."""

    root: Path
    source: Source
    users: int
    dates: tuple[date, ...]
    data: str
    api_port: int
    rehearsal_port: int
    leaves_after_batch: bool
    lake_uri: str | None = None  # where the lake is, if not in the work folder
    fault_seed: int | None = None  # what goes wrong at the rehearsal provider; None: nothing
    method: PushMethod | None = None  # how all campaigns are pushed; None: as their files say

    @property
    def is_demo(self) -> bool:
        """The shop is made here, not brought."""
        return self.source.name == DEMO_SOURCE and self.data == str(self.work / "shop.db")

    @property
    def work(self) -> Path:
        """The folder of this source and size, so that two shops never mix."""
        work = work_folder(self.root, self.source, self.users, self.dates[0], self.lake_uri)
        return rehearsal_folder(work, self.method, self.fault_seed)

    @property
    def campaigns(self) -> Path:
        """The folder of the campaigns' files."""
        return self.work / "campaigns" if self.method else self.campaigns_of_checkout

    @property
    def campaigns_of_checkout(self) -> Path:
        """The folder where the campaigns' files are kept."""
        return self.root / "dags" / "campaigns"

    @property
    def lake(self) -> str:
        """The lake: a folder or s3://bucket/prefix."""
        return self.lake_uri or str(self.work / "lake")

    @property
    def shop_first_date(self) -> date:
        """The demo shop's first day: the same for every date after the default, so that later days extend one shop."""
        return _first_shop_day(min(self.dates[0], self.source.default_date or DEMO_DATE))

    @property
    def ui_url(self) -> str:
        """Where Airflow's UI and REST API are."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def rehearsal_url(self) -> str:
        """Where the rehearsal provider is."""
        return f"http://127.0.0.1:{self.rehearsal_port}"

    @property
    def logs(self) -> Path:
        """Where the output of each part goes."""
        return self.root / ".airflow" / "logs" / "stack"

    @property
    def secrets(self) -> Path:
        """Where airflow.cfg expects the secrets."""
        return self.root / ".airflow" / "secrets"


def work_folder(root: Path, source: Source, users: int, first_date: date, lake_uri: str | None = None) -> Path:
    """Name the work folder: only the demo shop has a size, and a shop that begins earlier is another shop.

    A lake elsewhere has a folder of its own too: its ledger must not be another lake's.
    """
    name = source.name
    if source.name == DEMO_SOURCE:
        name = f"{source.name}-{users}"
        if first_date < (source.default_date or DEMO_DATE):
            name = f"{name}-from-{_first_shop_day(first_date)}"
    if lake_uri:
        name = f"{name}-lake-{hashlib.sha256(lake_uri.encode()).hexdigest()[:8]}"
    return root / ".airflow" / "work" / name


def rehearsal_folder(work: Path, method: PushMethod | None, fault_seed: int | None) -> Path:
    """Name the folder of a night by another method, or of a bad one: its ledger and its provider are its own."""
    if method:
        work = work.with_name(f"{work.name}-by-{method}")
    return work if fault_seed is None else work.with_name(f"{work.name}-faults-{fault_seed}")


def read_source(path: Path) -> Source:
    """Read a source's settings file.

    Raises: ConfigError if there is none, if it is not TOML, or if it has no name.
    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file; expected a source's settings file (TOML). "
            "Give one that exists: make run SOURCE=docs/examples/demo_shop.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not a TOML file: {error}; expected a source's settings file. Correct it."
        ) from error
    name = content.get("name")
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(
            f"{path}: name is {name!r}; expected letters, digits, _ and -, because the work folder is called so. "
            'Add a line like: name = "my_shop"'
        )
    return Source(path, name, _default_date(path, content.get("default_date")), content.get("data_folder"))


def resolve_data(source: Source, given: str | None, demo_database: Path) -> str | None:
    """Say where the data is: as given, else the demo's own database, else the settings file's `data_folder`.

    A given folder counts from where the command is typed, the settings file's from the file. A URL (with ://) stays.
    """
    if given:
        return given if "://" in given else str(Path(given).expanduser().resolve())
    if source.name == DEMO_SOURCE:
        return str(demo_database)
    folder = source.data_folder
    return folder if folder is None or "://" in folder else str((source.path.parent / folder).resolve())


def _first_shop_day(first_night: date) -> date:
    return first_night - timedelta(days=HISTORY_DAYS - 1)


def _default_date(path: Path, value: object) -> date | None:
    if value is None or isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError as error:
        raise ConfigError(
            f"{path}: default_date is {value!r}; expected a date like 2026-11-02. Correct it or give DATE="
        ) from error
