"""The files of a log: listed from a folder, glob, file or URI, hive partitions understood, footers read once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from embtables.errors import BadFileError, DataError
from embtables.inputs.columns import is_list, is_text

_GLOB = re.compile(r"[*?\[]")
# A row group is read whole. A megabyte of parquet can hold 200 million zeros: the footer is asked before memory is.
MAX_ROW_GROUP_ROWS = 10_000_000


@dataclass(frozen=True)
class LogFile:
    """One parquet file: its path, its footer, and the values its hive folders give."""

    path: str
    metadata: Any
    schema: pa.Schema
    partition: dict[str, int | str]

    @property
    def column_names(self) -> list[str]:
        """Columns of the file and of its folders."""
        return [*self.schema.names, *(name for name in self.partition if name not in self.schema.names)]

    def column_type(self, name: str) -> pa.DataType:
        """The type of one of its columns."""
        if name in self.partition:
            return pa.string() if isinstance(self.partition[name], str) else pa.int64()
        return self.schema.field(name).type


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row group: the unit of reading."""

    file: int
    row_group: int
    rows: int
    first_row: int


@dataclass
class Source:
    """Listed files with readable footers; files that were set aside are in `bad_files` with the reason."""

    filesystem: Any
    files: list[LogFile]
    bad_files: dict[str, str] = field(default_factory=dict)

    def chunks(self) -> list[Chunk]:
        """Row groups of all files in path order, empty ones left out."""
        found = []
        for number, file in enumerate(self.files):
            first = 0
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if rows:
                    found.append(Chunk(number, group, rows, first))
                first += rows
        return found

    def read(self, file: LogFile, row_groups: list[int], columns: list[str]) -> pa.Table:
        """Row groups of a file, the named columns, partition columns included.

        Raises:
            BadFileError: the pages are damaged; names the file.
        """
        stored = [name for name in columns if name not in file.partition]
        try:
            with self.filesystem.open_input_file(file.path) as handle:
                parquet = pq.ParquetFile(
                    handle, metadata=file.metadata, pre_buffer=True, page_checksum_verification=True
                )
                table = parquet.read_row_groups(row_groups, columns=stored, use_threads=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadFileError(_reason(error), file=file.path) from error
        for name in columns:
            if name in file.partition:
                table = table.append_column(name, pa.array([file.partition[name]] * table.num_rows))
        return table


def open_source(path: str, files: str, *, quarantine: bool) -> Source:
    """Lists the parquet files at `path` and reads their footers.

    Raises:
        DataError: there is nothing. BadFileError: a footer is damaged and `quarantine` is off.
    """
    filesystem, root, pattern = _locate(path, files)
    paths = _list(filesystem, root, pattern, path)
    source = Source(filesystem, [])
    with ThreadPoolExecutor(8) as pool:
        for found, result in zip(paths, pool.map(lambda p: _footer(filesystem, p, root), paths), strict=True):
            if isinstance(result, LogFile):
                source.files.append(result)
            elif quarantine:
                source.bad_files[found] = result
            else:
                raise BadFileError(result, file=found)
    if not source.files:
        raise DataError("no readable parquet file is left", path=path)
    return source


def _locate(path: str, files: str) -> tuple[Any, str, str]:
    """(filesystem, root folder or file, glob below it)."""
    if "://" in path:
        try:
            filesystem, root = fs.FileSystem.from_uri(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"is not a URI that can be opened: {error}", path=path) from error
        return filesystem, root, files
    found = _GLOB.search(path)
    if found:
        parts = PurePosixPath(path).parts
        plain = next(i for i, part in enumerate(parts) if _GLOB.search(part))
        return fs.LocalFileSystem(), str(PurePosixPath(*parts[:plain])), "/".join(parts[plain:])
    return fs.LocalFileSystem(), path, files


def _list(filesystem: Any, root: str, pattern: str, shown: str) -> list[str]:
    info = filesystem.get_file_info(root)
    if info.type == fs.FileType.File:
        return [root]
    if info.type == fs.FileType.NotFound:
        raise DataError("does not exist; set data.path to the folder of the parquet log", path=shown)
    matcher = re.compile(_glob_to_regex(pattern))
    entries = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    base = root.rstrip("/") + "/"
    paths = sorted(
        e.path for e in entries if e.type == fs.FileType.File and _visible(e.path.removeprefix(base), matcher)
    )
    if not paths:
        raise DataError(f"holds no file that matches '{pattern}'", path=shown)
    return paths


def _visible(relative: str, matcher: re.Pattern[str]) -> bool:
    hidden = any(part.startswith((".", "_")) for part in relative.split("/"))
    return not hidden and matcher.fullmatch(relative) is not None


def _glob_to_regex(pattern: str) -> str:
    """`**/` is any number of folders, `*` and `?` stay within one."""
    out, i = "", 0
    while i < len(pattern):
        if pattern.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif pattern.startswith("**", i):
            out, i = out + ".*", i + 2
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(pattern[i], re.escape(pattern[i]))
            i += 1
    return out


def _footer(filesystem: Any, path: str, root: str) -> LogFile | str:
    try:
        with filesystem.open_input_file(path) as handle:
            parquet = pq.ParquetFile(handle)
            largest = max((parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)), default=0)
            if largest > MAX_ROW_GROUP_ROWS:
                limit = f"at most {MAX_ROW_GROUP_ROWS:,}; write it again with row groups of about 100,000"
                return f"has a row group of {largest:,} rows, which is read whole: {limit}"
            return LogFile(path, parquet.metadata, parquet.schema_arrow, _partition(path.removeprefix(root)))
    except (pa.ArrowException, OSError, ValueError) as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"cannot be read as parquet: {text}; replace it, or set data.on_bad_file: quarantine"


def _partition(relative: str) -> dict[str, int | str]:
    values: dict[str, int | str] = {}
    for part in relative.split("/")[:-1]:
        name, sign, value = part.partition("=")
        if sign and name:
            text = unquote(value)
            values[name] = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    return values


def family(kind: pa.DataType) -> str:
    """What a column holds, whatever its width or encoding: files may differ in those only."""
    if pa.types.is_dictionary(kind):
        return family(kind.value_type)
    if is_list(kind):
        return f"list of {family(kind.value_type)}"
    if is_text(kind):
        return "string"
    named = {
        "boolean": pa.types.is_boolean,
        "integer": pa.types.is_integer,
        "float": pa.types.is_floating,
        "timestamp": pa.types.is_temporal,
        "null": pa.types.is_null,
    }
    return next((name for name, check in named.items() if check(kind)), str(kind))


def check_columns(files: Iterable[LogFile], columns: list[str]) -> None:
    """Raises DataError if a file lacks a column, or holds it as something else than the first file does."""
    first: dict[str, tuple[str, LogFile]] = {}
    for file in files:
        for name in columns:
            if name in file.partition:
                here = "string" if isinstance(file.partition[name], str) else "integer"
            elif name in file.schema.names:
                here = family(file.schema.field(name).type)
            else:
                raise DataError(
                    f"is missing; the file has: {', '.join(file.column_names)}", file=file.path, column=name
                )
            there, origin = first.setdefault(name, (here, file))
            if here != there and "null" not in (here, there):
                raise DataError(f"holds {here}, but {there} in {origin.path}", file=file.path, column=name)


def unify(tables: list[pa.Table]) -> pa.Table:
    """Tables of one block as one; columns whose types differ in width or encoding are widened."""
    if len(tables) == 1:
        return tables[0]
    for name in tables[0].schema.names:
        kinds = {t.schema.field(name).type for t in tables}
        if len(kinds) > 1:
            wide = _wide(kinds)
            tables = [t.set_column(t.schema.get_field_index(name), name, t.column(name).cast(wide)) for t in tables]
    return pa.concat_tables([t.replace_schema_metadata(None) for t in tables])


def _wide(kinds: set[pa.DataType]) -> pa.DataType:
    known = [k for k in kinds if not pa.types.is_null(k)]
    if any(is_list(k) for k in known):
        return pa.large_list(_wide({k.value_type for k in known}))
    widest = {
        "string": pa.large_string(),
        "integer": pa.int64(),
        "float": pa.float64(),
        "timestamp": pa.timestamp("us"),
    }
    return widest.get(family(known[0]), known[0])
