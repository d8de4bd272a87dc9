"""A shop that is a folder of files, mapped by its settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

from jobs.lake.manifest import Window
from jobs.sources.file_readers import OpenFile, Use, open_file
from jobs.sources.mapping import map_batch
from schemas.errors import ConfigError, SchemaError
from schemas.source import FilesSettings, FileTable, column_type
from schemas.tables import Table

_GLOB: Final = frozenset("*?[")


class FilesSource:
    """Reads every day's events each time; the export keeps those of its window."""

    holds_all_days = True

    def __init__(self, settings: FilesSettings, folder: Path) -> None:
        self.name = settings.name
        self._settings = settings
        self._folder = folder

    def batches(self, table: Table, window: Window) -> Iterator[pa.RecordBatch]:
        files: FileTable = getattr(self._settings, table.name)
        paths = self._paths(files)
        opened = [(path, open_file(path, delimiter=files.delimiter)) for path in paths]
        # A file without even a header holds no rows; the export says so if it was the only one.
        opened = [(path, file) for path, file in opened if file.columns]
        _check_columns(table, files, opened)
        uses = column_uses(table, files)
        position = 1
        for _, file in opened:
            for rows in file.read(uses):
                yield map_batch(table, rows, rules=files.columns, properties=files.properties, first_position=position)
                position += rows.num_rows

    def _paths(self, files: FileTable) -> list[Path]:
        if not self._folder.is_dir():
            raise ConfigError(
                f"source {self.name}: the data folder {self._folder} does not exist; "
                f"put the data there or say where it is (DATA=folder, --data folder)"
            )
        if not _GLOB & set(files.path):
            path = self._folder / files.path
            if not path.is_file():
                raise ConfigError(
                    f"source {self.name}: {path} does not exist; expected the file that the settings name, "
                    f"in the folder that --data or data_folder names"
                )
            return [path]
        paths = sorted(path for path in self._folder.glob(files.path) if path.is_file())
        if not paths:
            raise ConfigError(f"source {self.name}: no file is called {files.path} in {self._folder}; check both")
        return paths


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


def _check_columns(table: Table, files: FileTable, opened: list[tuple[Path, OpenFile]]) -> None:
    problems = []
    for path, file in opened:
        if missing := [name for name in files.source_columns if name not in file.columns]:
            problems.append(f"{path.name} has no column {', '.join(missing)}; it has {', '.join(file.columns)}")
    if problems:
        raise SchemaError(f"{table.name}: {'; '.join(problems)}. Correct [{table.name}.columns] in the source settings")
