"""Where the one record batch of an Arrow IPC file lies, read off its footer, and whether it is compressed.

Arrow would decompress without asking how much memory that takes, and does not say where a batch lies. So this reads
the few fields of the flatbuffers that it takes: https://arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from embtables.errors import StateError

_TAIL = 10  # bytes: the footer's length and the closing magic
_CONTINUATION = 0xFFFFFFFF
_FOOTER_BATCHES, _MESSAGE_HEADER, _BATCH_COMPRESSION, _DICTIONARY_DATA = 3, 2, 3, 1  # fields by number

Need = Callable[[int, int], None]
"""Has bytes [first, end) of a file there; raises StateError where the file has no such bytes, or damaged ones."""


def need_metadata(raw: memoryview, need: Need, file: object) -> None:
    """Asks for all parts of a file that Arrow reads before it reads values.

    Raises:
        StateError: the file has not exactly one batch, or a compressed one.
        struct.error, IndexError: it is not an Arrow file.
    """
    end = len(raw) - _TAIL
    need(end, len(raw))
    footer_bytes = struct.unpack_from("<I", raw, end)[0]
    need(end - footer_bytes, end)
    footer = bytes(raw[end - footer_bytes : end])
    batches = _field_at(footer, struct.unpack_from("<I", footer, 0)[0], _FOOTER_BATCHES)
    batches += struct.unpack_from("<I", footer, batches)[0] if batches else 0
    count = struct.unpack_from("<I", footer, batches)[0] if batches else 0
    if count != 1:
        raise StateError(f"has {count} record batches, expected one", file=file)
    at, size = struct.unpack_from("<qi", footer, batches + 4)
    need(at, at + size)
    marker, message_bytes = struct.unpack_from("<Ii", raw, at)
    if marker != _CONTINUATION or message_bytes + 8 > size:
        raise StateError("is damaged: its footer points to no record batch", file=file)
    if is_compressed(bytes(raw[at + 8 : at + size])):
        raise StateError("is compressed, which this build never writes", file=file)


def is_compressed(message: bytes, *, dictionary: bool = False) -> bool:
    """Whether the metadata of a message says that its buffers are compressed.

    Args:
        message: the flatbuffer of a record batch.
        dictionary: it is that of a dictionary, which holds a record batch.

    Raises:
        struct.error: it is no such flatbuffer.
    """
    header = _field_at(message, struct.unpack_from("<I", message, 0)[0], _MESSAGE_HEADER)
    header += struct.unpack_from("<I", message, header)[0]
    if dictionary:
        header = _field_at(message, header, _DICTIONARY_DATA)
        header += struct.unpack_from("<I", message, header)[0]
    return bool(_field_at(message, header, _BATCH_COMPRESSION))


def _field_at(buffer: bytes, table: int, number: int) -> int:
    """The place of a flatbuffer table's field; 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", buffer, vtable + at)[0] if at < size else 0
    return table + offset if offset else 0
