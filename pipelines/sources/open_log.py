"""`open_log`: the log that a data section names, on the disk or in memory."""

from __future__ import annotations

from embtables.errors import ConfigError
from embtables.pipelines.sources.files.source import Source
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.memory import MEMORY
from embtables.schema import LogConfig, Schema


def open_log(schema: Schema, data: LogConfig, source: Source | None = None) -> Log:
    """The log that `data` names: the one in memory, if it is one, else its files.

    Raises:
        ConfigError: the rows were in memory and are not given.
        DataError, BadFileError: as `Log`.
    """
    if source is None and MEMORY in (data.path, data.parts.train if data.parts is not None else None):
        raise ConfigError("the rows of this run were in memory (a DataFrame); give them again: data=...")
    return Log(schema, data, source)
