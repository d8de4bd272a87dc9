"""`make run`: checks, starts the stack, runs the dates, shows what came out, stays up until it is told to stop."""

import importlib.metadata
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.markup import escape

from jobs.rehearsal.history import fault_counts
from ryml_airflow.campaigns import names
from ryml_airflow.stack.airflow_api import AirflowApi
from ryml_airflow.stack.campaign_files import write_campaigns
from ryml_airflow.stack.down import end_leftovers
from ryml_airflow.stack.environment import component_environment, ignored_airflow_variables
from ryml_airflow.stack.interruption import InterruptedBySignalError, Interruption
from ryml_airflow.stack.night import Night, NightFailedError
from ryml_airflow.stack.preflight import data_problem, machine_problems
from ryml_airflow.stack.run_settings import (
    DEMO_DATE,
    DEMO_SOURCE,
    SHOP_SEED,
    RunSettings,
    read_source,
    rehearsal_folder,
    resolve_data,
    work_folder,
)
from ryml_airflow.stack.secret_files import UI_USER, ensure_key, ensure_secrets
from ryml_airflow.stack.stack_file import read_record, stack_lock
from ryml_airflow.stack.summary import DaySummary
from ryml_airflow.stack.supervisor import PartDiedError, Supervisor
from ryml_airflow.stack.terminal import Terminal
from ryml_airflow.stack.waiting_mails import counted_when_left
from schemas.errors import ConfigError, RymlError
from schemas.push_method import PushMethod

# Name and arguments. Task logs are read from the disk that all components share; the servers that would hand them out
# listen on every network and can not be told otherwise.
_COMPONENTS = (
    ("api-server", ()),
    ("scheduler", ("--skip-serve-logs",)),
    ("dag-processor", ()),
    ("triggerer", ("--skip-serve-logs",)),
)
# One Spark job at a time fits two cores beside Airflow; four requests at a time are far below the provider's limits.
_POOLS = (
    ("spark", 1, "Spark jobs"),
    ("training", 1, "backtests and training, out of the way of the night's other jobs"),
    ("sendgrid", 4, "requests to the e-mail provider"),
)
_START_SECONDS = 180.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class UpOptions:
    """What the command line said; `source` and `data` as typed."""

    root: Path
    source: Path
    data: str | None
    users: int
    date: date | None
    days: int
    api_port: int
    rehearsal_port: int
    leaves_after_batch: bool
    lake: str | None = None
    fault_seed: int | None = None
    method: PushMethod | None = None


def up(options: UpOptions, *, terminal: Terminal, environ: Mapping[str, str]) -> int:
    """Run the whole thing; give the exit status.

    Raises: ConfigError if something is not as it has to be, InterruptedBySignalError if a signal ends it before the
    batch is done. Everything else that ryml foresaw is shown at once, before the stack stops.
    """
    interruption = Interruption()
    with interruption.installed(), stack_lock(options.root) as is_held:
        if not is_held:
            record = read_record(options.root)
            where = f" at {record.url}" if record else ""
            raise ConfigError(f"ryml is running already{where}; expected nothing to run. Stop it first: make stop")
        # Whatever ran here has lost its launcher: the lock was free.
        if leftovers := end_leftovers(options.root):
            terminal.line(f"Stopped {leftovers} processes that an earlier run left.")
        settings = checked_settings(options, environ)
        ignored = ignored_airflow_variables(environ)
        if ignored:
            terminal.line(f"Not taken over from the environment: {', '.join(ignored)}")
        return _Stack(settings, terminal, interruption, environ).run()


def checked_settings(options: UpOptions, environ: Mapping[str, str]) -> RunSettings:
    """Check everything and settle what is to be done.

    Raises: ConfigError with all problems, a paragraph each.
    """
    ports = {"API_PORT": options.api_port, "REHEARSAL_PORT": options.rehearsal_port}
    problems = machine_problems(root=options.root, environ=environ, ports=ports)
    settings = None
    try:
        source = read_source(options.source)
        first = options.date or source.default_date or (DEMO_DATE if source.name == DEMO_SOURCE else None)
        if first is None:
            problems.append(f"{source.path}: no default_date; expected one, or a date given. Type: make run DATE=...")
        else:
            work = work_folder(options.root, source, options.users, first, options.lake)
            work = rehearsal_folder(work, options.method, options.fault_seed)
            data = resolve_data(source, options.data, work / "shop.db")
            settings = RunSettings(
                root=options.root,
                source=source,
                users=options.users,
                dates=tuple(first + timedelta(days=day) for day in range(options.days)),
                data=data or "",
                api_port=options.api_port,
                rehearsal_port=options.rehearsal_port,
                leaves_after_batch=options.leaves_after_batch,
                lake_uri=options.lake,
                fault_seed=options.fault_seed,
                method=options.method,
            )
            if not settings.is_demo and (problem := data_problem(source, data)):
                problems.append(problem)
    except ConfigError as error:
        problems.append(str(error))
    if problems or settings is None:
        raise ConfigError("\n\n".join(problems))
    return settings


class _Stack:
    """One life of the stack, from the first process to the last."""

    def __init__(
        self, settings: RunSettings, terminal: Terminal, interruption: Interruption, environ: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._terminal = terminal
        self._interruption = interruption
        if settings.fault_seed is not None:
            # A rehearsal of a bad night is a whole one: what an earlier one with this seed left would be no work.
            shutil.rmtree(settings.work, ignore_errors=True)
        settings.work.mkdir(parents=True, exist_ok=True)
        if settings.method:
            write_campaigns(settings.campaigns_of_checkout, settings.campaigns, settings.method)
        self._password = ensure_secrets(settings.secrets)
        self._key_file = settings.work / "rehearsal_key"
        environment = component_environment(settings, rehearsal_key=ensure_key(self._key_file), inherited=environ)
        self._supervisor = Supervisor(
            root=settings.root,
            url=settings.ui_url,
            logs=settings.logs,
            environment=environment,
            interruption=interruption,
        )
        self._is_batch_done = False

    def run(self) -> int:
        """Start, run, stay; whatever happens, nothing is left running."""
        try:
            return self._supervisor.run(self._start_and_stay)
        except InterruptedBySignalError:
            if self._is_batch_done:
                return 0
            raise
        finally:
            self._terminal.line("Stopped.")

    def _start_and_stay(self) -> int:
        try:
            failure = self._start_and_run()
            self._is_batch_done = failure is None
            if failure is not None:
                self._terminal.failure(str(failure))
            if not self._settings.leaves_after_batch:
                self._stay()
            return 0 if failure is None else failure.exit_status
        except RymlError as error:
            self._terminal.failure(str(error))
            return error.exit_status
        finally:
            self._terminal.line("Stopping ...")

    def _start_and_run(self) -> RymlError | None:
        began = time.monotonic()
        with self._terminal.live(), closing(AirflowApi(self._settings.ui_url, pause=self._pause)) as api:
            started_at = datetime.now(UTC)
            self._start(api, started_at)
            campaigns = tuple(names(self._settings.campaigns))
            night = Night(api, self._terminal, self._pause, campaigns)
            night.end_abandoned_runs()
            self._doing("Airflow reads the DAGs", began)
            night.wait_until_parsed(since=started_at)
            self._terminal.line(f"Airflow is up after {time.monotonic() - began:.1f} s: {self._settings.ui_url}")
            return self._run_dates(night, began)

    def _start(self, api: AirflowApi, started_at: datetime) -> None:
        settings, began = self._settings, time.monotonic()
        if settings.is_demo:
            # Adds the days that are missing, which takes a second if none is; done while Airflow starts.
            self._supervisor.start("make_demo_shop", self._make_shop_command(), is_service=False)
        self._migrate()
        for name, arguments in _COMPONENTS:
            self._supervisor.start(name, [_binary("airflow"), name, *arguments], is_service=True)
        faults = [] if settings.fault_seed is None else ["--faults", str(settings.fault_seed)]
        self._supervisor.start(
            "rehearsal",
            [
                *(sys.executable, "-m", "jobs.serve_rehearsal", "--port", str(settings.rehearsal_port)),
                *("--state", str(settings.work / "rehearsal.db"), "--key-file", str(self._key_file), *faults),
            ],
            is_service=True,
        )
        while not (api.is_healthy(since=started_at) and _listens(settings.rehearsal_port)):
            self._doing("starting Airflow and the rehearsal provider", began)
            if time.monotonic() - began > _START_SECONDS:
                raise PartDiedError(
                    f"Airflow is not healthy after {_START_SECONDS:.0f} s; expected about 10 s. "
                    f"See what it waits for: {settings.logs}"
                )
            self._pause(_POLL_SECONDS)
        api.log_in(UI_USER, self._password)
        for name, slots, description in _POOLS:
            api.set_pool(name, slots, description)
        while settings.is_demo and not self._supervisor.is_done("make_demo_shop"):
            self._doing(f"making the demo shop with {settings.users:,} users", began)
            self._pause(_POLL_SECONDS)

    def _make_shop_command(self) -> list[str]:
        settings = self._settings
        return [
            *(sys.executable, "-m", "jobs.make_demo_shop", "--path", settings.data),
            *("--users", str(settings.users), "--seed", str(SHOP_SEED)),
            *("--first-date", str(settings.shop_first_date), "--last-date", str(settings.dates[-1])),
            *("--image-base-url", f"{settings.rehearsal_url}/images"),
        ]

    def _migrate(self) -> None:
        """Bring Airflow's database to this version of Airflow; 2 to 4 s, saved where the stamp says it is done."""
        state = self._settings.root / ".airflow"
        stamp, version = state / "airflow.db.version", importlib.metadata.version("apache-airflow-core")
        if (state / "airflow.db").exists() and stamp.exists() and stamp.read_text() == version:
            return
        began = time.monotonic()
        self._supervisor.start("db-migrate", [_binary("airflow"), "db", "migrate"], is_service=False)
        while not self._supervisor.is_done("db-migrate"):
            self._doing("preparing Airflow's database", began)
            self._pause(_POLL_SECONDS)
        stamp.write_text(version)

    def _run_dates(self, night: Night, began: float) -> RymlError | None:
        days = []
        try:
            for day in self._settings.dates:
                days.append(night.run(day))
        except NightFailedError as error:
            return error
        self._terminal.summary(days)
        if self._settings.fault_seed is not None:
            counts = fault_counts(self._settings.work / "rehearsal.db-history")
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            self._terminal.line(f"The provider went wrong with seed {self._settings.fault_seed}: {told}.")
        failure = self._look_into_mailbox(days)
        self._terminal.line(f"Done after {time.monotonic() - began:.0f} s.")
        return failure

    def _look_into_mailbox(self, days: Sequence[DaySummary]) -> RymlError | None:
        """Let mails leave that wait for their time, and count; an error if somebody has two of one send."""
        settings = self._settings
        found = counted_when_left(
            url=settings.rehearsal_url,
            key=ensure_key(self._key_file),
            state=settings.work / "rehearsal.db",
            leave_at=max((day.leave_at for day in days if day.leave_at), default=None),
            pause=self._pause,
        )
        if found.waiting or found.twice:
            return NightFailedError(
                f"{found.waiting} sends wait at the rehearsal provider and {found.twice} people have two mails of one "
                f"send; expected none. Look at {settings.rehearsal_url}/history"
            )
        self._terminal.line(f"The mailbox has {found.mails:,} mails; nobody has two of one send.")
        return None

    def _stay(self) -> None:
        settings = self._settings
        self._terminal.marked_up(
            f"\nAirflow    [link]{settings.ui_url}[/link]  user {UI_USER}, password {self._password}\n"
            f"Mailbox    [link]{settings.rehearsal_url}/mailbox[/link]\n"
            f"Logs       {escape(str(settings.logs))}\n"
            "Ctrl-C stops everything; from another terminal: make stop"
        )
        while True:
            self._pause(60.0)

    def _pause(self, seconds: float) -> None:
        self._supervisor.pause(seconds)

    def _doing(self, what: str, began: float) -> None:
        self._terminal.doing(what, seconds=time.monotonic() - began)


def _binary(name: str) -> str:
    return str(Path(sys.prefix) / "bin" / name)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
