"""A process that appends to a log until it is killed: `python -m tests.events.writing URI WRITER`.

It says on stdout, a line each, which entries were acknowledged: `partition number`.
"""

from __future__ import annotations

import sys
from contextlib import closing

from embtables.events import open_log
from tests.events.events_for_tests import events


def main(uri: str, writer: int) -> None:
    with closing(open_log(uri)) as log:
        print("ready", flush=True)
        number = writer * 1_000_000
        while True:
            partition = number // 10 % log.num_partitions
            log.append(partition, events(number, 1 + number % 7))
            print(partition, number, flush=True)
            number += 10


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
