"""A shop that is a folder of files, mapped by its settings."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from jobs.lake.manifest import Window
from jobs.sources.column_kinds import UNKNOWN
from jobs.sources.file_places import SourceFile, SourceFolder
from jobs.sources.file_readers import OpenFile, Use, open_file
from jobs.sources.mapping import map_batch
from jobs.sources.protocol import Reading
from schemas.errors import ConfigError, SchemaError
from schemas.source import FilesSettings, FileTable, column_type
from schemas.tables import Table


class FilesSource:
    """Reads every day's events each time; the export keeps those of its window."""

    def __init__(self, settings: FilesSettings, folder: SourceFolder) -> None:
        self.name = settings.name
        self._settings = settings
        self._folder = folder

    @contextlib.contextmanager
    def reading(
        self,
        table: Table,
        window: Window,  # files cannot be asked for a window
        *,
        known_columns: frozenset[str] | None = None,  # columns that are not named are not read
    ) -> Iterator[Reading]:
        files: FileTable = getattr(self._settings, table.name)
        if files.marker is not None and not self._folder.holds(files.marker):
            raise ConfigError(
                f"source {self.name}: {self._folder.place} has no {files.marker}, which the settings expect to be "
                f"written last; wait until the files of {table.name} are complete and run the export again"
            )
        paths = self._folder.files(files.path, self.name)
        opened = [(path, open_file(path, delimiter=files.delimiter, open_end=files.open_end)) for path in paths]
        if len(opened) > 1:
            _check_headers(table, opened)
        # A file without even a header holds no rows; the export says so if it was the only one.
        opened = [(path, file) for path, file in opened if file.columns]
        yield Reading(
            columns=_common_columns(table, files, opened),
            used=frozenset(files.source_columns),
            batches=_mapped(table, files, opened),
            holds_all_days=True,
        )


def _mapped(table: Table, files: FileTable, opened: list[tuple[SourceFile, OpenFile]]) -> Iterator[pa.RecordBatch]:
    uses = column_uses(table, files)
    position = 1
    for _, file in opened:
        for rows in file.read(uses):
            yield map_batch(
                table, rows, rules=files.columns, properties=files.properties, first_position=position,
                zone=files.timezone,
            )  # fmt: skip
            position += rows.num_rows


def column_uses(table: Table, files: FileTable) -> dict[str, Use]:
    """Tell what each source column that is read is used for; text wins, because it loses nothing."""
    uses: dict[str, Use] = {}
    for target, rule in files.columns.items():
        kind = column_type(table, target)
        use: Use = "flag" if pa.types.is_boolean(kind) else "text"
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            use = "number"
        if rule.template is not None or rule.values:
            use = "text"
        for column in rule.source_columns:
            uses[column] = use if uses.get(column, use) == use else "text"
    return uses | dict.fromkeys(files.properties, "text")


def _check_headers(table: Table, opened: list[tuple[SourceFile, OpenFile]]) -> None:
    """Refuse a CSV file of several that is empty: whoever writes one writes its header first."""
    headless = [file.name for file, found in opened if file.suffix == ".csv" and not found.columns]
    if headless:
        raise SchemaError(
            f"{table.name}: {', '.join(headless)} is empty, without even a header, as a writer leaves it that was "
            f"stopped. Nothing was exported; write it again, whole, or delete it if it is not needed"
        )


def _common_columns(table: Table, files: FileTable, opened: list[tuple[SourceFile, OpenFile]]) -> dict[str, str]:
    """Give the columns of all files, each with its kind; SchemaError with everything that is missing or differs."""
    problems = []
    columns: dict[str, str] = {}
    for path, file in opened:
        if missing := [name for name in files.source_columns if name not in file.columns]:
            problems.append(f"{path.name} has no column {', '.join(missing)}; it has {', '.join(file.columns)}")
        for name, kind in file.columns.items():
            known = columns.get(name, UNKNOWN)
            if known == UNKNOWN:
                columns[name] = kind
            elif kind not in (known, UNKNOWN) and name in files.source_columns:
                problems.append(f"{path.name} has {name} as {kind}, the files before it as {known}")
    if problems:
        raise SchemaError(f"{table.name}: {'; '.join(problems)}. Correct [{table.name}.columns] in the source settings")
    return columns
