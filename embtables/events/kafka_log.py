"""`KafkaLog`: the event log in a topic of Kafka, or of a broker with its protocol. One message is one entry.

A position is the offset of the message. Readers take partitions by `assign`, in no consumer group: their offsets lie in
their own state, the broker keeps none, and no heartbeat has to be sent, however long a step of the reader takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, unquote

import pyarrow as pa
import stamina

from embtables.errors import ConfigError, DataError, EventLogAwayError, EventLogError, EventsLostError
from embtables.events.encoding import MAX_ENTRY_BYTES, decode, encode
from embtables.events.lost import events_lost
from embtables.events.options import KafkaOptions, parse_options, shown
from embtables.events.protocol import Entry, Positions

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, Producer

Answer = TypeVar("Answer")

_MAX_BYTES = 64 << 20  # of one answer, unless its first entry is larger
_POLL_SECONDS = (0.005, 0.05)  # the first pause between two looks at the ends of partitions, and the longest
_AT_ONCE = 100  # messages that one call of the client returns
_READ_AHEAD_KIB, _FETCH_AHEAD_KIB = 16 << 10, 1 << 10  # of each partition, in this process


class KafkaLog:
    """The event log in one topic; any number of threads and processes may append and read.

    Args:
        brokers: host:port,host:port.

    Raises:
        ConfigError: the topic has another number of partitions than the options say.
        EventLogError: no broker can be reached, or the topic cannot be made.
    """

    def __init__(self, brokers: str, topic: str, options: KafkaOptions) -> None:
        self._connection = _Connection(brokers, topic, options)
        self._num_partitions = self._connection.num_partitions()
        self._producer_turn = threading.Lock()
        self._producer: Producer | None = None
        self._readers = [_Reader(self._connection, p, _READ_AHEAD_KIB) for p in range(self._num_partitions)]
        self._fetchers = [_Reader(self._connection, p, _FETCH_AHEAD_KIB) for p in range(self._num_partitions)]

    @classmethod
    def from_uri(cls, parts: SplitResult) -> KafkaLog:
        """The log of `kafka://host:port,host:port/topic`. Raises as the constructor does."""
        try:
            import confluent_kafka  # noqa: F401
        except ImportError as error:
            raise ConfigError("a log in Kafka needs: pip install 'embtables[kafka]'") from error
        options = parse_options(KafkaOptions, parts)
        topic = unquote(parts.path.strip("/"))
        if not parts.netloc or not topic or "/" in topic or "@" in parts.netloc:
            raise ConfigError("a log in Kafka is kafka://host:port,host:port/topic", uri=shown(parts))
        return cls(parts.netloc, topic, options)

    @property
    def num_partitions(self) -> int:
        """See EventLog."""
        return self._num_partitions

    def append(self, partition: int, events: pa.RecordBatch) -> str:
        """See EventLog. All replicas that are in sync have it then (`acks=all`)."""
        self._check(partition)
        payload = bytes(encode(events))
        outcome: list[tuple[Any, Any]] = []
        producer = self._current_producer()

        def delivered(error: Any, message: Message) -> None:
            outcome.append((error, message.offset()))

        deadline = time.monotonic() + self._connection.options.timeout_seconds + 1.0
        try:
            producer.produce(self._connection.topic, payload, partition=partition, on_delivery=delivered)
            while not outcome and time.monotonic() < deadline:
                producer.flush(0.5)  # sends at once; what other threads have produced meanwhile goes with it
        except (_kafka_exception(), BufferError) as error:
            raise self._not_taken(error, len(payload), producer) from error
        if not outcome:
            raise self._connection.failed("an entry was sent, but not acknowledged in time")
        failure, offset = outcome[0]
        if failure is not None:
            raise self._not_taken(_kafka_exception()(failure), len(payload), producer)
        return str(offset)

    def read(self, partition: int, after: str | None, *, max_entries: int = 1000) -> list[Entry]:
        """See EventLog."""
        self._check(partition)
        low, high = self._connection.offsets(partition)
        first = low if after is None else self._parsed(after, high, partition) + 1
        if first < low:
            raise self._lost(partition, first, low)
        messages = self._readers[partition].messages(first, min(max_entries, high - first))
        return [Entry(partition, str(m.offset()), self._decoded(partition, m)) for m in messages]

    def fetch(self, partition: int, position: str) -> pa.RecordBatch:
        """See EventLog."""
        self._check(partition)
        low, high = self._connection.offsets(partition)
        offset = self._parsed(position, high, partition)
        if offset < low:
            raise self._lost(partition, offset, low)
        messages = self._fetchers[partition].messages(offset, 1)
        if not messages or messages[0].offset() != offset:
            raise EventLogError("the topic has no message at the position", **self._connection.path(partition, offset))
        return self._decoded(partition, messages[0])

    def last(self, partition: int) -> str | None:
        """See EventLog."""
        self._check(partition)
        low, high = self._connection.offsets(partition)
        return str(high - 1) if high > low else None

    def wait(self, after: Positions, timeout_seconds: float, *, partitions: Collection[int] | None = None) -> bool:
        """See EventLog. It asks for the ends of the partitions every few milliseconds."""
        asked = range(self._num_partitions) if partitions is None else partitions
        deadline, pause = time.monotonic() + timeout_seconds, _POLL_SECONDS[0]
        while not any(self._has_more(p, after.get(p)) for p in asked):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, _POLL_SECONDS[1])
        return True

    def close(self) -> None:
        """See EventLog."""
        for reader in (*self._readers, *self._fetchers):
            reader.close()
        self._producer = None  # it has sent everything: each append has waited; its threads end with it
        self._connection.close()

    def _has_more(self, partition: int, after: str | None) -> bool:
        low, high = self._connection.offsets(partition)
        return high > (low if after is None else self._parsed(after, high, partition) + 1)

    def _check(self, partition: int) -> None:
        if not 0 <= partition < self._num_partitions:
            raise EventLogError(
                f"has partitions 0 to {self._num_partitions - 1}, not {partition}", log=self._connection.where
            )

    def _current_producer(self) -> Producer:
        with self._producer_turn:
            if self._producer is None:
                self._producer = self._connection.producer()
            return self._producer

    def _not_taken(self, error: Exception, size: int, producer: Producer) -> Exception:
        """The error of an entry that was not appended; an idempotent producer that has failed for ever is replaced."""
        from confluent_kafka import KafkaError

        cause = error.args[0] if error.args else None
        if isinstance(cause, KafkaError) and cause.fatal():
            with self._producer_turn:
                if self._producer is producer:
                    self._producer = None
        if isinstance(cause, KafkaError) and cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return DataError(
                f"an entry of {size:,} bytes is larger than the topic takes (max.message.bytes); append fewer events "
                "at once, or let the topic take more",
                log=self._connection.where,
            )
        return self._connection.failed("an entry was not taken", error)

    def _parsed(self, position: str, high: int, partition: int) -> int:
        if not (position.isascii() and position.isdigit() and len(position) <= 19):
            raise EventLogError(f"{position[:80]!r} is no position of a log in Kafka: an offset", partition=partition)
        offset = int(position)
        if offset >= high:
            raise EventLogError(
                f"position {offset:,} is of no entry of this log, which ends before {high:,}: it is of another log, or "
                "the brokers have lost entries",
                **self._connection.path(partition),
            )
        return offset

    def _lost(self, partition: int, first: int, low: int) -> EventsLostError:
        return events_lost(first, low, "retention.ms, retention.bytes", **self._connection.path(partition))

    def _decoded(self, partition: int, message: Message) -> pa.RecordBatch:
        path = self._connection.path(partition, message.offset())
        value = message.value()
        if not isinstance(value, bytes) or len(value) > MAX_ENTRY_BYTES:
            raise EventLogError("a message was not appended by this package: it has no value, or a longer one", **path)
        return decode(value, **path)


class _Connection:
    """What a log's producer and consumers share: the topic, where offsets begin and end, errors."""

    def __init__(self, brokers: str, topic: str, options: KafkaOptions) -> None:
        self.topic, self.options, self.where = topic, options, f"kafka://{brokers}/{topic}"
        # Errors reach the caller as exceptions; librdkafka's own lines on stderr would be said twice.
        self._settings: dict[str, Any] = {"bootstrap.servers": brokers, "log_level": 2}
        self._offsets = self.consumer(_FETCH_AHEAD_KIB)

    def producer(self) -> Producer:
        """An idempotent producer: what it sends again, after a connection was lost, is there once."""
        from confluent_kafka import Producer

        return Producer(
            {
                **self._settings,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 50,  # brokers take few large requests better than many small ones
                "message.max.bytes": MAX_ENTRY_BYTES + 4096,
                "delivery.timeout.ms": int(self.options.timeout_seconds * 1000),
            }
        )

    def consumer(self, ahead_kib: int) -> Consumer:
        """A consumer that keeps no offsets at the broker, and reads at most so many KiB ahead."""
        from confluent_kafka import Consumer

        return Consumer(
            {
                **self._settings,
                "group.id": "embtables",  # the client wants a name; the group has no members
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "allow.auto.create.topics": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "queued.max.messages.kbytes": ahead_kib,
                "message.max.bytes": MAX_ENTRY_BYTES + 4096,
            }
        )

    def num_partitions(self) -> int:
        """Those that the topic has; it is made, where there is none, with those that were asked for, or 1."""
        asked = self.options.partitions
        found = self._retried("the topic cannot be looked at", self._count)
        if not found:
            self._create(asked or 1)
            found = self._retried("the topic cannot be looked at", self._count_made)
        if asked is not None and found != asked:
            raise ConfigError(f"the topic has {found} partitions, not {asked}", log=self.where)
        return found

    def _count(self) -> int:
        found = self._offsets.list_topics(self.topic, timeout=self.options.timeout_seconds).topics
        return len(found[self.topic].partitions) if self.topic in found else 0

    def _count_made(self) -> int:
        if not (found := self._count()):
            from confluent_kafka import KafkaError

            raise _kafka_exception()(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))  # a moment after it was made
        return found

    def _create(self, partitions: int) -> None:
        from confluent_kafka import KafkaError
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        topic = NewTopic(self.topic, partitions, self.options.replication)
        admin = AdminClient(self._settings)
        try:
            admin.create_topics([topic])[self.topic].result(self.options.timeout_seconds)
        except _kafka_exception() as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                raise self.failed("the topic cannot be made", error) from error

    def offsets(self, partition: int) -> tuple[int, int]:
        """The offset of the oldest entry that is kept, and the one that comes next."""
        from confluent_kafka import TopicPartition

        at = TopicPartition(self.topic, partition)
        ask = self.options.timeout_seconds
        return self._retried(
            "the ends of a partition are not known",
            lambda: self._offsets.get_watermark_offsets(at, timeout=ask, cached=False),
        )

    def _retried(self, what: str, ask: Callable[[], Answer]) -> Answer:
        failure = _kafka_exception()
        try:
            for attempt in stamina.retry_context(
                on=failure, attempts=None, timeout=self.options.timeout_seconds, wait_initial=0.05, wait_max=1.0
            ):
                with attempt:
                    return ask()
        except failure as error:
            raise EventLogAwayError(f"{what}: {error}", log=self.where) from error
        raise AssertionError  # stamina raises the last failure

    def failed(self, what: str, error: object = None) -> EventLogError:
        """The error for what a broker did not do."""
        return EventLogError(what if error is None else f"{what}: {error}", log=self.where)

    def path(self, partition: int, offset: int | None = None) -> dict[str, object]:
        """Where an entry lies, for errors."""
        return {"log": self.where, "partition": partition, "offset": offset}

    def close(self) -> None:
        """Frees the connection."""
        self._offsets.close()


class _Reader:
    """Messages of one partition from any offset on; one that goes on where it was finds them read ahead."""

    def __init__(self, connection: _Connection, partition: int, ahead_kib: int) -> None:
        self._connection, self._partition, self._ahead_kib = connection, partition, ahead_kib
        self._consumer: Consumer | None = None
        self._next: int | None = None
        self._turn = threading.Lock()

    def messages(self, first: int, count: int) -> list[Message]:
        """Up to `count` messages from an offset on, which are there. Raises EventLogError where they do not come."""
        if count < 1:
            return []
        with self._turn:
            try:
                return self._consumed(first, count)
            except _kafka_exception() as error:
                raise self._connection.failed("a partition cannot be read", error) from error

    def _consumed(self, first: int, count: int) -> list[Message]:
        from confluent_kafka import KafkaError, TopicPartition

        if self._consumer is None:
            self._consumer = self._connection.consumer(self._ahead_kib)
        if self._next != first:
            self._consumer.assign([TopicPartition(self._connection.topic, self._partition, first)])
        self._next = None  # until all went well
        found: list[Message] = []
        size, deadline = 0, time.monotonic() + self._connection.options.timeout_seconds
        while len(found) < count and size < _MAX_BYTES:
            for message in self._consumer.consume(min(count - len(found), _AT_ONCE), timeout=0.1):
                error = message.error()
                if error is None:
                    found.append(message)
                    size += len(message.value() or b"")
                elif error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                    raise _kafka_exception()(error)
            if time.monotonic() > deadline:
                if found:
                    break
                raise EventLogAwayError(
                    "a partition cannot be read: no message came in time", log=self._connection.where
                )
        last = found[-1].offset()
        assert last is not None
        self._next = last + 1
        return found

    def close(self) -> None:
        """Frees the consumer."""
        with self._turn:
            if self._consumer is not None:
                self._consumer.close()


def _kafka_exception() -> type[Exception]:
    from confluent_kafka import KafkaException

    return KafkaException
