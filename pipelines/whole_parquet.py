"""`WholeParquet`: a parquet file that appears at its path whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embtables.state.folder.local_folder import sync


class WholeParquet:
    """Rows are written beside the path under a hidden name, which becomes the path when the block ends without error.

    Nothing is left of a file that was not finished, unless the process is killed: then a file whose name begins with a
    dot remains, which no reader takes for data.

    Args:
        path: where it appears.
        options: of `pyarrow.parquet.ParquetWriter`.

    Raises:
        OSError: on writing, and at the end.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        self._path = path
        self._options = options
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> WholeParquet:
        return self

    def write(self, table: pa.Table) -> None:
        """Appends rows; the first ones decide the schema."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._temporary, table.schema, **self._options)
        self._writer.write_table(table)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._writer is not None:
                self._writer.close()
                with self._temporary.open("rb") as file:
                    os.fsync(file.fileno())
                self._temporary.replace(self._path)
                sync(self._path.parent)
        finally:
            self._give_up()
            self._temporary.unlink(missing_ok=True)

    def _give_up(self) -> None:
        if self._writer is not None and self._writer.is_open:
            with suppress(OSError):
                self._writer.close()
            # What could not be closed would be closed again, with the same error, when it is collected.
            self._writer.is_open = False
