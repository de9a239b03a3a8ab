"""`FolderWatch`: says when names in a folder may have changed, by events of the system where it has them.

A network file system tells nothing of what another machine wrote, and neither does one in user space: there the reader
has to look again and again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from watchfiles import watch

_MOUNTS = Path("/proc/self/mounts")
# Types of file systems, and beginnings of types, on which another machine or process may write without an event here.
_NETWORK = (
    "nfs", "cifs", "smb", "9p", "fuse", "afs", "ceph", "gluster", "lustre", "gpfs", "beegfs", "virtiofs", "vboxsf",
    "vmhgfs", "davfs", "gfs2", "ocfs2", "pvfs2", "orangefs", "prl_fs", "ncpfs", "drvfs",
)  # fmt: skip
_GROUP_MILLISECONDS = 20  # events closer than this come together
_LOOK_MILLISECONDS = 10
_STOP_MILLISECONDS = 500

logging.getLogger("watchfiles.main").setLevel(logging.WARNING)  # it tells of every change


def has_events(folder: Path, mounts: str | None = None) -> bool:
    """Whether the system tells what changes in a folder, whoever changes it.

    Args:
        mounts: as /proc/self/mounts has them, which is read by default. Without one, it is not known and the answer
            is no.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(errors="surrogateescape")
        except OSError:
            return False
    place, found, longest = Path(folder).resolve(), "", -1
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(_unescaped(fields[1]))
        # Of two mounts at one place the later one is seen.
        if place.is_relative_to(point) and len(point.parts) >= longest:
            longest, found = len(point.parts), fields[2]
    return bool(found) and not found.startswith(_NETWORK)


def _unescaped(point: str) -> str:
    """A mount's place: blanks, tabs, line ends and backslashes are octal in that file."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, character)
    return point


class FolderWatch:
    """Calls a function soon after names in a folder changed, on a thread of its own.

    It is a help and no promise: whoever waits looks from time to time on its own, too.

    Args:
        folder: may not be there yet.
        changed: called on the thread; returns at once.
        retry_seconds: how often a folder that is not there is looked for.
    """

    def __init__(self, folder: Path, changed: Callable[[], None], *, retry_seconds: float = 0.25) -> None:
        self._folder = folder
        self._changed = changed
        self._retry_seconds = retry_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch-versions", daemon=True)
        self.is_watching = False

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it, and waits for its thread."""
        self._stop.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._folder.is_dir() and has_events(self._folder):
                try:
                    self._watch()
                except (OSError, RuntimeError):  # it went away meanwhile, or the system's watches are used up
                    self.is_watching = False
            self._stop.wait(self._retry_seconds)

    def _watch(self) -> None:
        events = watch(
            self._folder,
            watch_filter=None,
            debounce=_GROUP_MILLISECONDS,
            step=_LOOK_MILLISECONDS,
            stop_event=self._stop,
            rust_timeout=_STOP_MILLISECONDS,
            yield_on_timeout=True,
            recursive=False,
            raise_interrupt=False,
            force_polling=False,
        )
        identity = self._folder.stat().st_ino
        for changes in events:
            first, self.is_watching = not self.is_watching, True
            if changes or first:  # what came before the watch began made no event
                self._changed()
            if not self._folder.is_dir() or self._folder.stat().st_ino != identity:
                break  # another folder of that name, which is not watched
        self.is_watching = False
