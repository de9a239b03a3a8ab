"""`RedisLog`: the event log in Redis Streams, one stream for each partition.

An entry of a stream has its number `n` (the first of the partition is 0, and none is left out) and `events`, an Arrow
IPC stream. Two scripts keep the number beside the id that Redis gives, so that a reader sees at once what was trimmed.
A position is `<id of Redis>.<n>`. Keys of the partition p have the hash tag `{stream:p}`: they lie on one node.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, unquote

import pyarrow as pa
import stamina

from embtables.errors import ConfigError, EventLogAwayError, EventLogError, EventsLostError
from embtables.events.encoding import decode, encode
from embtables.events.lost import events_lost
from embtables.events.options import RedisOptions, parse_options, shown
from embtables.events.protocol import Entry, Positions

if TYPE_CHECKING:
    import redis

Answer = TypeVar("Answer")

_POSITION = re.compile(r"([0-9]{1,20}-[0-9]{1,20})\.([0-9]{1,19})")
_STREAM = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
_MAX_BYTES = 64 << 20  # of one answer, unless its first entry is larger
_AT_ONCE = 32  # entries that one call of the server returns
_BLOCK_SECONDS = 1.0  # of one waiting call, so that a lost connection is noticed

# A writer whose connection broke sends the entry again: the server then finds the writer's last token, and answers
# what it did the first time.
_APPEND = """
local known = redis.call('HMGET', KEYS[3], 'token', 'id', 'n')
if known[1] == ARGV[2] then return {known[2], tonumber(known[3])} end
local n = tonumber(redis.call('GET', KEYS[2]) or '0')
local id
if ARGV[3] == 'age' then
  local now = redis.call('TIME')
  local oldest = math.max(0, math.floor(now[1] * 1000 + now[2] / 1000 - tonumber(ARGV[4])))
  id = redis.call('XADD', KEYS[1], 'MINID', '~', string.format('%.0f', oldest), '*', 'n', n, 'events', ARGV[1])
elseif ARGV[3] == 'entries' then
  id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', 'n', n, 'events', ARGV[1])
else
  id = redis.call('XADD', KEYS[1], '*', 'n', n, 'events', ARGV[1])
end
redis.call('SET', KEYS[2], n + 1)
redis.call('HSET', KEYS[3], 'token', ARGV[2], 'id', id, 'n', n)
redis.call('EXPIRE', KEYS[3], 3600)
return {id, n}
"""
# Reads go on where the server has no memory left for writes: a transaction would be refused as a whole.
_RANGE = """#!lua flags=no-writes
return {redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3]), redis.call('GET', KEYS[2]) or '0'}
"""
_EDGE = """#!lua flags=no-writes
local found = redis.call(ARGV[1], KEYS[1], ARGV[2], ARGV[3], 'COUNT', 1)
if #found == 0 then return false end
return {found[1][1], found[1][2][1], found[1][2][2]}
"""


class RedisLog:
    """The event log in a Redis server; any number of threads and processes may append and read.

    Args:
        client: of the `redis` package, which makes no attempts of its own and gives bytes.
        stream: the beginning of the names of the log's keys.
        where: the server, for messages.

    Raises:
        ConfigError: the log has another number of partitions than the options say.
        EventLogError: the server cannot be reached.
    """

    def __init__(self, client: redis.Redis, stream: str, options: RedisOptions, where: str) -> None:
        self._client, self._stream, self._options, self._where = client, stream, options, where
        self._append, self._edge = client.register_script(_APPEND), client.register_script(_EDGE)
        self._ranged = client.register_script(_RANGE)
        self._writer = secrets.token_hex(8)
        self._num_partitions = self._described(options.partitions)
        self._warn_of_losses()

    @classmethod
    def from_uri(cls, parts: SplitResult) -> RedisLog:
        """The log of `redis://user:password@host:port/database/stream`. Raises as the constructor does."""
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise ConfigError("a log in Redis needs: pip install 'embtables[redis]'") from error
        options = parse_options(RedisOptions, parts)
        database, _, stream = unquote(parts.path).removeprefix("/").partition("/")
        try:
            port = parts.port or 6379
        except ValueError as error:
            raise ConfigError(f"the port is wrong: {error}", uri=shown(parts)) from error
        if not parts.hostname or not re.fullmatch(r"[0-9]{1,4}", database) or not _STREAM.fullmatch(stream):
            raise ConfigError("a log in Redis is redis://host:port/database/stream", uri=shown(parts))
        client = redis.Redis(
            host=parts.hostname,
            port=port,
            db=int(database),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            ssl=parts.scheme == "rediss",
            socket_connect_timeout=options.timeout_seconds,
            socket_timeout=options.timeout_seconds + _BLOCK_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(client, stream, options, shown(parts))

    @property
    def num_partitions(self) -> int:
        """See EventLog."""
        return self._num_partitions

    def append(self, partition: int, events: pa.RecordBatch) -> str:
        """See EventLog. Durable as the server's `appendonly` and `appendfsync` say (docs/events.md)."""
        payload = bytes(encode(events))
        stream, counter = self._keys(partition)
        writer = f"{counter}:{self._writer}:{threading.get_ident()}"
        kind, limit = "", "0"
        if self._options.keep_seconds is not None:
            kind, limit = "age", str(int(self._options.keep_seconds * 1000))
        elif self._options.keep_entries is not None:
            kind, limit = "entries", str(self._options.keep_entries)
        token = secrets.token_hex(8)
        arguments: list[bytes | str] = [payload, token, kind, limit]
        found: Any = self._call(lambda: self._append(keys=[stream, counter, writer], args=arguments), stream)
        return f"{found[0].decode()}.{int(found[1])}"

    def read(self, partition: int, after: str | None, *, max_entries: int = 1000) -> list[Entry]:
        """See EventLog."""
        stream, counter = self._keys(partition)
        found: list[Entry] = []
        left = _MAX_BYTES
        while len(found) < max_entries and left > 0:
            start, due = ("-", None) if after is None else self._parsed(after, partition)
            count = min(_AT_ONCE, max_entries - len(found))
            rows, total = self._range(stream, counter, start if due is None else f"({start}", count)
            if due is not None and due >= total:
                raise self._foreign(str(after), partition, total)
            for row_id, fields in rows:
                number, payload = self._fields(row_id, fields, stream)
                if due is not None and number != due + 1:
                    if found:
                        return found
                    raise self._lost(partition, due + 1, number)
                after = f"{row_id.decode()}.{number}"
                found.append(Entry(partition, after, decode(payload, stream=stream, entry=row_id.decode())))
                due = number
                left -= len(payload)
            if due is not None and not rows and due + 1 < total and not found:
                raise self._lost(partition, due + 1, total)
            if len(rows) < count:
                break
        return found

    def fetch(self, partition: int, position: str) -> pa.RecordBatch:
        """See EventLog."""
        stream, counter = self._keys(partition)
        entry, number = self._parsed(position, partition)
        rows, total = self._range(stream, counter, entry, 1, end=entry)
        if not rows:
            first: Any = self._call(lambda: self._edge(keys=[stream], args=["XRANGE", "-", "+"]), stream)
            kept = total if first is None else int(first[2])
            raise self._lost(partition, number, kept) if number < kept else self._foreign(position, partition, total)
        found, payload = self._fields(*rows[0], stream)
        if found != number:
            raise self._foreign(position, partition, total)
        return decode(payload, stream=stream, entry=entry)

    def last(self, partition: int) -> str | None:
        """See EventLog."""
        stream, _ = self._keys(partition)
        found: Any = self._call(lambda: self._edge(keys=[stream], args=["XREVRANGE", "+", "-"]), stream)
        return None if found is None else f"{found[0].decode()}.{int(found[2])}"

    def wait(self, after: Positions, timeout_seconds: float, *, partitions: Collection[int] | None = None) -> bool:
        """See EventLog. The server holds the call until there is an entry."""
        begun: dict[Any, Any] = {
            self._keys(p)[0]: self._parsed(after[p], p)[0] if p in after else "0-0"
            for p in (range(self._num_partitions) if partitions is None else partitions)
        }
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = min(deadline - time.monotonic(), _BLOCK_SECONDS)
            # 0 would be for ever.
            block = max(1, int(left * 1000))
            found = self._call(lambda block=block: self._client.xread(begun, count=1, block=block), "XREAD")  # type: ignore[misc]
            if found:
                return True
            if time.monotonic() >= deadline:
                return False

    def close(self) -> None:
        """See EventLog."""
        self._client.close()

    def _keys(self, partition: int) -> tuple[str, str]:
        """The stream of a partition, and the number of entries that it was given."""
        if not 0 <= partition < self._num_partitions:
            raise EventLogError(f"has partitions 0 to {self._num_partitions - 1}, not {partition}", log=self._where)
        stream = f"{{{self._stream}:{partition}}}"
        return stream, f"{stream}:entries"

    def _range(
        self, stream: str, counter: str, start: str, count: int, end: str = "+"
    ) -> tuple[Sequence[tuple[bytes, dict[bytes, bytes]]], int]:
        """Entries, and how many the stream was ever given, of one moment."""

        found: Any = self._call(lambda: self._ranged(keys=[stream, counter], args=[start, end, count]), stream)
        rows = [(row, dict(zip(fields[::2], fields[1::2], strict=True))) for row, fields in found[0]]
        return rows, int(found[1])

    def _fields(self, entry: bytes, fields: dict[bytes, bytes], stream: str) -> tuple[int, bytes]:
        number, payload = fields.get(b"n", b""), fields.get(b"events")
        if not number.isdigit() or len(number) > 19 or payload is None:
            raise EventLogError(
                "an entry was not appended by this package: it has no `n` and `events`",
                stream=stream,
                entry=entry.decode(),
            )
        return int(number), payload

    def _parsed(self, position: str, partition: int) -> tuple[str, int]:
        found = _POSITION.fullmatch(position)
        if found is None:
            raise EventLogError(f"{position[:80]!r} is no position of a log in Redis: <id>.<n>", partition=partition)
        return found[1], int(found[2])

    def _lost(self, partition: int, first: int, kept: int) -> EventsLostError:
        return events_lost(first, kept, "keep_seconds, keep_entries", log=self._where, partition=partition)

    def _foreign(self, position: str, partition: int, total: int) -> EventLogError:
        return EventLogError(
            f"position {position} is of no entry of this log, which was given {total:,}: it is of another log, or the "
            "server has lost entries that were not synced (appendfsync)",
            log=self._where,
            partition=partition,
        )

    def _described(self, asked: int | None) -> int:
        """The number of partitions, which is fixed by who comes first."""
        key = f"{self._stream}:partitions"

        def ask() -> Any:
            self._client.set(key, asked or 1, nx=True)
            return self._client.get(key)

        found = self._call(ask, key)
        if not found.isdigit() or not 1 <= int(found) <= 1024:
            raise EventLogError(f"key {key} is {found[:80]!r}, not a number of partitions", log=self._where)
        if asked is not None and int(found) != asked:
            raise ConfigError(f"the log has {int(found)} partitions, not {asked}", log=self._where)
        return int(found)

    def _warn_of_losses(self) -> None:
        """Says what of the acknowledged entries the server may lose."""
        import redis

        try:
            found: Any = self._call(lambda: self._client.config_get("append*"), "CONFIG GET")
        except EventLogError as error:
            if not isinstance(error.__cause__, redis.ResponseError):
                raise
            warnings.warn(f"{self._where} does not say whether it is durable: {error.message}", stacklevel=2)
            return
        if found.get("appendonly") != "yes":
            said = "appendonly is off: what is appended is lost when the server ends"
        elif found.get("appendfsync") == "no":
            said = "appendfsync is no: a loss of power may take the entries of half a minute"
        elif found.get("appendfsync") == "everysec":
            said = "appendfsync is everysec: a loss of power may take the entries of two seconds"
        else:
            return
        warnings.warn(f"{self._where}: {said} (docs/events.md)", stacklevel=2)

    def _call(self, ask: Callable[[], Answer], what: str) -> Answer:
        """What the server answers; where the connection is lost, it is tried again for timeout_seconds."""
        import redis

        lost = (redis.ConnectionError, redis.TimeoutError)
        try:
            for attempt in stamina.retry_context(
                on=lost, attempts=None, timeout=self._options.timeout_seconds, wait_initial=0.05, wait_max=1.0
            ):
                with attempt:
                    return ask()
        except lost as error:
            raise EventLogAwayError(f"{what}: the server cannot be reached: {error}", log=self._where) from error
        except redis.RedisError as error:
            raise EventLogError(f"{what}: the server refuses: {error}", log=self._where) from error
        raise AssertionError  # stamina raises the last failure
