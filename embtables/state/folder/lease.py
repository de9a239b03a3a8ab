"""`Lease`: the right to write to a state folder, which one process has at a time.

A lock says who holds it now. `lease.json` names the last holder and its number, which rises by 1 with each holder (a
fencing token; the file's key is `epoch`). A holder that lost the lease to a machine which does not see its lock finds
another number there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from embtables.errors import StateError
from embtables.state.folder.protocol import Folder, Lock
from embtables.state.format import small_files

LEASE, LOCK = "lease.json", "lease.lock"


class Lease:
    """The lease of one state folder.

    Attributes:
        number: of this holder; 0 if it has none.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock: Lock | None = None
        self.number = 0

    def take(self, last_number: Callable[[], int]) -> None:
        """Takes the lease.

        Args:
            last_number: of the last holder as far as versions record it; used if `lease.json` is gone.

        Raises:
            StateError: another process holds it (it is named), or `lease.json` is damaged.
            OSError: the folder cannot be written.
        """
        try:
            self._lock = self._folder.lock(LOCK)
        except BlockingIOError:
            raise StateError(f"is being written by {self._holder()}", folder=self._folder.root) from None
        try:
            former = self._read()
            self.number = (last_number() if former is None else former.epoch) + 1
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            self._folder.replace(LEASE, small_files.encode(small_files.Lease(epoch=self.number, holder=holder)))
        except BaseException:
            self.give_back()
            raise

    def check(self) -> None:
        """Raises StateError if this process has no lease, or lost it."""
        now = None if self._lock is None else self._read()
        if now is None or now.epoch != self.number:
            raise StateError("this process has lost the lease to write here", folder=self._folder.root)

    def give_back(self) -> None:
        """Lets others take it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _holder(self) -> str:
        try:
            now = self._read()
        except StateError:
            now = None
        return "another process" if now is None else now.holder

    def _read(self) -> small_files.Lease | None:
        """What `lease.json` says; None if there is none."""
        file = self._folder.path(LEASE)
        try:
            return small_files.decode(self._folder.read(LEASE, small_files.MAX_BYTES), small_files.Lease, file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=file) from error
        except StateError as error:
            hint = "remove it when no process writes to this folder"
            raise StateError(f"{error.message}; {hint}", **error.path) from None
