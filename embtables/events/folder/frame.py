"""The bytes of a segment: a header, then one frame for each entry (docs/events.md, "Bytes of a segment").

    segment  magic "EMBEVSEG" | format u32 | partition u32 | first entry u64 | created u64, microseconds | XXH3-64
    frame    magic "EVNT" | length u32 | entry u64 | XXH3-128 of these 16 bytes and the payload | payload

All numbers are little-endian; the payload is an Arrow IPC stream.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

from embtables.errors import EventLogError
from embtables.events.encoding import MAX_ENTRY_BYTES

_SEGMENT = struct.Struct("<8sIIQQ8s")
_SEGMENT_MAGIC = b"EMBEVSEG"
_FORMAT = 1
_FRAME = struct.Struct("<4sIQ16s")
_FRAME_MAGIC = b"EVNT"
_SUMMED = 16  # bytes of a frame's header that its checksum covers

SEGMENT_HEADER = _SEGMENT.size
FRAME_HEADER = _FRAME.size


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The header of a frame whose bytes were not yet compared with its checksum.

    Attributes:
        length: of the payload, in bytes.
        checksum: (16,) bytes.
    """

    length: int
    entry: int
    checksum: bytes
    summed: bytes

    @property
    def size(self) -> int:
        """Of the whole frame, in bytes."""
        return FRAME_HEADER + self.length

    @property
    def digest(self) -> str:
        """What a position has of the checksum."""
        return self.checksum[:4].hex()

    def matches(self, payload: bytes | memoryview) -> bool:
        """Whether these are the bytes that were appended."""
        return len(payload) == self.length and _checksum(self.summed, payload) == self.checksum


def frame_header(entry: int, payload: memoryview) -> FrameHeader:
    """The header of a new frame; `pack_frame` gives its bytes."""
    summed = _FRAME.pack(_FRAME_MAGIC, payload.nbytes, entry, b"")[:_SUMMED]
    return FrameHeader(payload.nbytes, entry, _checksum(summed, payload), summed)


def pack_frame(header: FrameHeader) -> bytes:
    """(32,) bytes that lie before the payload."""
    return header.summed + header.checksum


def unpack_frame(data: bytes | memoryview) -> FrameHeader | None:
    """What the first 32 bytes say; None where they are no header of a frame."""
    if len(data) < FRAME_HEADER:
        return None
    magic, length, entry, checksum = _FRAME.unpack(data[:FRAME_HEADER])
    if magic != _FRAME_MAGIC or length > MAX_ENTRY_BYTES:
        return None
    return FrameHeader(length, entry, checksum, bytes(data[:_SUMMED]))


def pack_segment(partition: int, first_entry: int, created: int) -> bytes:
    """The header of a segment. `created`: microseconds since 1970, of the clock of the writer."""
    head = _SEGMENT.pack(_SEGMENT_MAGIC, _FORMAT, partition, first_entry, created, b"")[:-8]
    return head + xxhash.xxh3_64_digest(head)


def unpack_segment(data: bytes, partition: int, first_entry: int, **path: object) -> int:
    """When a segment was created, in microseconds. Raises EventLogError if it is not the one that its name says."""
    if len(data) < SEGMENT_HEADER or xxhash.xxh3_64_digest(data[: SEGMENT_HEADER - 8]) != data[SEGMENT_HEADER - 8 :]:
        raise EventLogError("the header of the segment is damaged; restore the file from a copy", **path, offset=0)
    magic, version, found_partition, found_entry, created, _ = _SEGMENT.unpack(data)
    if magic != _SEGMENT_MAGIC or version != _FORMAT:
        raise EventLogError(
            f"is no segment of format {_FORMAT} (format {version}); read it with the embtables that wrote it", **path
        )
    if (found_partition, found_entry) != (partition, first_entry):
        raise EventLogError(
            f"is the segment of partition {found_partition} from entry {found_entry}, not the one that its name says; "
            "was it moved?",
            **path,
        )
    return int(created)


def _checksum(summed: bytes, payload: bytes | memoryview) -> bytes:
    digest = xxhash.xxh3_128(summed)
    digest.update(payload)
    found: bytes = digest.digest()
    return found
