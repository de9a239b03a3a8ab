"""A process that tests kill at its system calls: `python -m tests.events.folder.appending FOLDER ENTRIES`.

It appends to a folder log whose segments are small, and says each entry that was acknowledged, a line each.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

from embtables.events.folder import FolderLog
from embtables.events.options import FolderOptions
from tests.events.events_for_tests import events
from tests.faults.driver import BEGIN

# Three or four entries to a segment, of which the last three stay.
OPTIONS = FolderOptions(segment_bytes=4096, keep_bytes=12_000)


def main(root: Path, entries: int) -> None:
    Path(BEGIN).exists()
    with closing(FolderLog(root, OPTIONS)) as log:
        for number in range(entries):
            log.append(0, events(number, 1))
            os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
