"""The server under load: scores and embeddings beside a naive service, bare granian and Redis; deltas meanwhile; the
time until a version is seen; the time and memory of a start with ten million rows.

Load comes from a process of its own (benchmarks/_serving/load.cpp). `--only PART` measures one part; each writes its
own section of RESULTS.md. It needs g++ and, for `embed`, Debian's redis-server.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks import _harness
from benchmarks._serving import embeddings, scores, start, updates

Part = Callable[[argparse.Namespace], tuple[dict[str, Any], str]]
PARTS: dict[str, tuple[str, Part]] = {
    "score": (scores.TITLE, scores.measure),
    "embed": (embeddings.TITLE, embeddings.measure),
    "updates": (updates.TITLE, updates.measure),
    "start": (start.TITLE, start.measure),
}


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--only", choices=PARTS, action="append", help="a part; by default all of them")
    args = options.parse_args()
    for name in args.only or PARTS:
        title, measure = PARTS[name]
        result, markdown = measure(args)
        _harness.finish(f"serving_{name}", title, result, markdown, args, f"serving --only {name}")


if __name__ == "__main__":
    main()
