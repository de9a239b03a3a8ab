"""`open_log`: the event log that a URI names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, unquote

from embtables.errors import ConfigError
from embtables.events.options import parse_uri, shown
from embtables.events.protocol import EventLog


def _folder(parts: SplitResult) -> EventLog:
    from embtables.events.folder.log import FolderLog

    return FolderLog.from_uri(parts)


def _redis(parts: SplitResult) -> EventLog:
    from embtables.events.redis_log import RedisLog

    return RedisLog.from_uri(parts)


def _kafka(parts: SplitResult) -> EventLog:
    from embtables.events.kafka_log import KafkaLog

    return KafkaLog.from_uri(parts)


_KINDS: dict[str, Callable[[SplitResult], EventLog]] = {
    "folder": _folder,
    "redis": _redis,
    "rediss": _redis,
    "kafka": _kafka,
}


def folder_of(uri: str) -> Path | None:
    """The folder that a log lies in, which all who read it must see; None: it is on servers.

    Raises:
        ConfigError: the URI is wrong.
    """
    parts = parse_uri(uri)
    return Path(unquote(parts.path)) if parts.scheme == "folder" else None


def open_log(uri: str) -> EventLog:
    """The event log that a URI names; it is made where there is none.

    Args:
        uri: `folder:///path`, `redis://host:port/database/stream` (`rediss` for TLS) or `kafka://host:port/topic`, with
            options as a query: `folder:///path?partitions=4&keep_seconds=604800` (docs/events.md, "Options").

    Raises:
        ConfigError: the URI or an option is wrong, the log has another number of partitions than `partitions`, or a
            package that the log needs is not installed.
        EventLogError: the log cannot be reached, made or read.

    Example:
        >>> import pyarrow, tempfile
        >>> from embtables.events import open_log
        >>> log = open_log(f"folder://{tempfile.mkdtemp()}/log?partitions=2")
        >>> position = log.append(1, pyarrow.record_batch({"event_id": ["a"]}))
        >>> [entry.position == position for entry in log.read(1, after=None)]
        [True]
        >>> log.close()
    """
    parts = parse_uri(uri)
    if parts.scheme not in _KINDS:
        raise ConfigError(f"no event log has the scheme '{parts.scheme}'; known: {', '.join(_KINDS)}", uri=shown(parts))
    return _KINDS[parts.scheme](parts)
