"""`Artifacts`: data that an encoder needs besides its configuration, and that travels with a version."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import xxhash

from embtables.errors import ConfigError
from embtables.given import need_mapping

# No dot: in a version the file `artifact.<feature>.<name>` is parted at its last one.
_NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")


class Artifacts(Mapping[str, bytes]):
    """Named bytes, each with its checksum. Immutable.

        >>> from embtables import Artifacts
        >>> of_items = Artifacts({"codes": b"0123"})
        >>> of_items["codes"], list(of_items.digests)
        (b'0123', ['codes'])

    Args:
        files: content by name; a name consists of letters, digits, '_' and '-'.

    Raises:
        ConfigError: a name holds anything else or is longer than 64 characters, or a content is no bytes.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        if files is not None:
            need_mapping(files, "files", "a dictionary of bytes")
        for name, content in (files or {}).items():
            if not isinstance(name, str) or _NAME.fullmatch(name) is None:
                raise ConfigError(f"artifact {name!r}: a name has 1 to 64 letters, digits, '_' and '-'")
            if not isinstance(content, bytes | bytearray | memoryview):
                raise ConfigError(f"artifact {name!r}: its content must be bytes, received a {type(content).__name__}")
        self._files = {name: bytes(content) for name, content in (files or {}).items()}

    @property
    def digests(self) -> dict[str, str]:
        """Hexadecimal XXH3-128 of each content, as the manifest of a version records it."""
        return {name: xxhash.xxh3_128_hexdigest(content) for name, content in sorted(self._files.items())}

    def __getitem__(self, name: str) -> bytes:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
