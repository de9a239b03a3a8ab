"""`LineFile`: lines written by a thread of their own, so that a slow disk or terminal holds no request up."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from pathlib import Path

from embtables.errors import ConfigError

_MAX_WAITING = 10_000
_MAX_WAITING_BYTES = 64 << 20


class LineFile:
    """Lines to a file (appended), or to stderr.

    Args:
        path: None: stderr.
        max_bytes: a file that is longer is renamed to `<name>.1`, what was there to `<name>.2`, and so on.
        kept: of these, besides the newest.

    Attributes:
        dropped: lines that were not written, because the disk was full or too slow.
    """

    def __init__(self, path: Path | None, *, max_bytes: int | None = None, kept: int = 0) -> None:
        self._path, self._max_bytes, self._kept = path, max_bytes, kept
        self.dropped = 0
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._wake = threading.Condition()
        self._ends = False
        self._handle = sys.stderr.fileno() if path is None else self._open()
        self._written = 0 if path is None else os.fstat(self._handle).st_size
        self._thread = threading.Thread(target=self._run, name="embtables-lines", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Writes a line soon. Drops it where too many wait."""
        with self._wake:
            if len(self._lines) >= _MAX_WAITING or self._bytes > _MAX_WAITING_BYTES:
                self.drop(1)
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._wake.notify()

    def drop(self, count: int) -> None:
        """Counts lines that are not written."""
        with self._wake:
            self.dropped += count

    def close(self, seconds: float = 5.0) -> None:
        """Writes what waits, for at most so long."""
        with self._wake:
            self._ends = True
            self._wake.notify()
        self._thread.join(seconds)
        if self._path is not None and not self._thread.is_alive():
            os.close(self._handle)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._lines or self._ends)
                lines, self._lines, self._bytes = self._lines, deque(), 0
                ends = self._ends
            try:
                self._write(lines)
            except (OSError, ConfigError):
                self.drop(len(lines))
            if ends and not self._lines:
                return

    def _write(self, lines: deque[bytes]) -> None:
        data = b"".join(line + b"\n" for line in lines)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        self._written += len(data)
        if self._max_bytes is not None and self._written >= self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        assert self._path is not None
        for number in range(self._kept, 0, -1):
            older = self._numbered(number - 1) if number > 1 else self._path
            with contextlib.suppress(FileNotFoundError):
                older.replace(self._numbered(number))
        if not self._kept:
            self._path.unlink()
        self._written = 0  # first: where the next file cannot be opened, this one goes on
        handle = self._open()
        os.close(self._handle)
        self._handle = handle

    def _numbered(self, number: int) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.{number}")

    def _open(self) -> int:
        assert self._path is not None
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", file=self._path) from None
