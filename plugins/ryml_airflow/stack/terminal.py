"""What `make run` shows: one line per stage that ended, and in a terminal a living line for what runs."""

import errno
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from ryml_airflow.stack.run_progress import Stage
from ryml_airflow.stack.summary import DaySummary

_MARKS = {"success": "[green]✓[/]", "skipped": "[dim]-[/]", "failed": "[red]✗[/]", "upstream_failed": "[red]✗[/]"}


class LastingOutput:
    """An output whose terminal may be closed: what is written then is lost, and stopping goes on undisturbed."""

    def __init__(self, stream: IO[str]) -> None:
        """Pass everything on to the stream."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Be the stream in everything that is not about losing it."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or lose it to a terminal that is gone."""
        try:
            return self._stream.write(text)
        except OSError as error:
            return self._lost(error, len(text))

    def flush(self) -> None:
        """Flush, or lose it likewise."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lost(error, 0)

    @staticmethod
    def _lost(error: OSError, characters: int) -> int:
        if error.errno != errno.EIO:  # what a closed terminal answers; a closed pipe ends the program, as it should
            raise error
        return characters


class Terminal:
    """Writes to a terminal with colours and a spinner, to anything else in plain lines."""

    def __init__(self, console: Console | None = None) -> None:
        """Write to standard output unless a console is given."""
        self._console = console or Console(file=cast(IO[str], LastingOutput(sys.stdout)), highlight=False)
        self._status: Status | None = None
        self._last_plain_status = ""

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep a living last line inside the block, if this is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        self._status = self._console.status("")
        self._status.start()
        try:
            yield
        finally:
            self._status.stop()
            self._status = None

    def line(self, text: str, *, style: str | None = None) -> None:
        """Write a line as it is."""
        self._console.print(text, style=style, markup=False, soft_wrap=True)

    def marked_up(self, text: str) -> None:
        """Write a line with rich's marks in it."""
        self._console.print(text, soft_wrap=True)

    def doing(self, what: str, *, seconds: float | None = None) -> None:
        """Say what is being done: in the living line, or once per different text where there is none."""
        if self._status is not None:
            passed = f" [dim]{seconds:.0f} s[/]" if seconds is not None else ""
            self._status.update(f"{escape(what)}{passed}")
        elif what != self._last_plain_status and not self._console.is_terminal:
            self._last_plain_status = what
            self.line(f"  ... {what}")

    def stage_ended(self, stage: Stage, *, number: int, total: int, rows: int | None, following: str | None) -> None:
        """Write the line of a stage that ended: rows, seconds and what is next."""
        line = stage_line(stage, number=number, total=total, rows=rows, following=following)
        self._console.print(line, soft_wrap=True)

    def stages_running(self, running: Sequence[Stage], following: str | None) -> None:
        """Show what runs just now; only in a terminal, where it does not fill the screen."""
        if self._status is not None and running:
            parts = [
                f"{stage.name}{f' {stage.done} of {stage.total}' if stage.is_mapped else ''}"
                f"{' (retrying)' if stage.state == 'retrying' else ''} {stage.seconds or 0:.0f} s"
                for stage in running
            ]
            after = f" [dim]· next {escape(following)}[/]" if following else ""
            self._status.update(f"{escape(', '.join(parts))}{after}")

    def summary(self, days: Sequence[DaySummary]) -> None:
        """Write the table of the batch: one column per date."""
        table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
        table.add_column("")
        for day in days:
            table.add_column(day.date.isoformat(), justify="right")
        for position, (label, _) in enumerate(days[0].figures):
            table.add_row(label, *(day.figures[position][1] for day in days))
        self._console.print()
        self._console.print(table)
        for day in days:
            for note in day.quarantine:
                self.line(note if len(days) == 1 else f"{day.date}: {note}")

    def failure(self, text: str) -> None:
        """Write an error message to where the rest goes, in red in a terminal."""
        self.line(text, style="red" if self._console.is_terminal else None)


def stage_line(stage: Stage, *, number: int, total: int, rows: int | None, following: str | None) -> str:
    """Lay out one stage that ended, in columns."""
    mark = _MARKS.get(stage.state, stage.state)
    if stage.is_mapped:
        amount = f"{stage.total:,} instance{'' if stage.total == 1 else 's'}"
    else:
        amount = "" if rows is None else f"{rows:,} row{'' if rows == 1 else 's'}"
    seconds = "" if stage.seconds is None else f"{stage.seconds:.1f} s"
    state = "" if stage.state == "success" else stage.state.replace("_", " ")
    after = state or (f"[dim]next {escape(following)}[/]" if following else "")
    return f"  {mark} {number:>2}/{total:<2} {escape(stage.name):<24} {amount:>18} {seconds:>9}  {after}".rstrip()


def returned_rows(returned: Mapping[str, Any]) -> int | None:
    """Read the row count out of what a task returned."""
    rows = returned.get("rows")
    return rows if isinstance(rows, int) and not isinstance(rows, bool) else None
