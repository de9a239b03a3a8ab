"""Some columns of all rows of all files, as one table in memory: for side tables and `data.prepare`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from embtables.errors import DataError
from embtables.inputs.arrow_types import plain
from embtables.pipelines.sources.files import LogFile, Source, check_columns, unify


def column_union(files: Sequence[LogFile]) -> list[str]:
    """The columns that any of the files has, in order of their first appearance."""
    return list(dict.fromkeys(name for file in files for name in file.column_names))


def check_all(source: Source, columns: Sequence[str]) -> None:
    """Raises DataError if a file lacks a column, has two of its name, or holds it as something else than the others."""
    for file in source.files:
        for name in columns:
            times = len(file.schema.get_all_field_indices(name))
            if times > 1:
                raise DataError(
                    f"is there {times} times; give each column a name of its own", file=file.path, column=name
                )
    check_columns(source.files, list(columns))


def read_each(source: Source, columns: Sequence[str]) -> list[pa.Table]:
    """The columns of all rows of each file, in plain types; none of them may be named twice.

    Raises:
        DataError: see `check_all`. BadFileError: the pages of a file are damaged.
    """
    check_all(source, columns)
    tables = [source.read(f, list(range(f.metadata.num_row_groups)), list(columns)) for f in source.files]
    # Made anew from the bare columns: files may differ in what their schemas say beside the types.
    return [pa.table([plain(t.column(name)) for name in columns], names=list(columns)) for t in tables]


def read_all(source: Source, columns: Sequence[str]) -> pa.Table:
    """As `read_each`, all files as one table."""
    return unify(read_each(source, columns))
