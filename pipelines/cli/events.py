"""`embtables events`: what lies in an event log, and the events that were refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embtables.pipelines.cli.options import Json
from embtables.pipelines.json_text import json_text

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(help="Read an event log; list and replay refused events.", no_args_is_help=True)

Uri = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="folder:///path, redis://host:port/database/stream or kafka://host:port/topic.",
        show_default=False,
    ),
]


@app.command("tail")
def tail(
    uri: Uri,
    follow: Annotated[bool, typer.Option(help="Begin at the end, and print what comes until Ctrl-C.")] = False,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.")] = None,
    max_events: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
) -> None:
    """Print the events of a log on stdout, one JSON object a line, the oldest that are kept first.

    Example: embtables events tail folder:///var/lib/shop/events --follow
    """
    from contextlib import closing

    from embtables.events import open_log

    with closing(open_log(uri)) as log:
        partitions = range(log.num_partitions) if partition is None else [partition]
        after = {p: last for p in partitions if follow and (last := log.last(p)) is not None}
        left = max_events
        while True:
            came = 0
            for p in partitions:
                for entry in log.read(p, after.get(p), max_entries=100):
                    after[p] = entry.position
                    came += 1
                    left = _print_events(entry.events, left, partition=p, position=entry.position)
                    if left == 0:
                        return
            if not came and not follow:
                return
            if not came:
                log.wait(after, 1.0, partitions=partitions)


@app.command("dead-letters")
def dead_letters(
    folder: Annotated[Path, typer.Argument(help="Folder of the refused events.", show_default=False)],
    replay: Annotated[
        str | None, typer.Option(metavar="URI", help="Check them again, and append the good ones to this log.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the events that were refused, with reasons, or check them again and append the good ones to a log.

    Example: embtables events dead-letters runs/online/dead-letters --replay folder:///var/lib/shop/events
    """
    from collections import Counter
    from contextlib import closing

    from embtables.errors import ConfigError
    from embtables.events import open_log
    from embtables.events.dead_letters import DEAD_REASON, DeadLetters

    if not (folder / "log.json").exists():
        raise ConfigError("there are no refused events", folder=folder)
    with closing(DeadLetters(folder)) as letters:
        if replay is not None:
            with closing(open_log(replay)) as log:
                done = letters.replay(log)
            report = {"appended": done.appended, "refused": dict(done.refused)}
        else:
            reasons: Counter[str] = Counter()
            for events in letters.pending():
                reasons.update(events.column(DEAD_REASON).to_pylist())
                if not as_json:
                    _print_events(events, None)
            report = {"pending": sum(reasons.values()), "reasons": dict(reasons)}
    if as_json:
        sys.stdout.write(json_text(report) + "\n")
    else:
        sys.stderr.write(", ".join(f"{name}: {value}" for name, value in report.items()) + "\n")


def _print_events(events: pa.RecordBatch, left: int | None, **where: object) -> int | None:
    """Prints events, at most `left`; returns how many more may be printed."""
    shown = events.slice(0, left)
    columns = [_plain(column) for column in shown.columns]
    for row in range(shown.num_rows):
        event = dict(zip(shown.schema.names, (column[row] for column in columns), strict=True))
        sys.stdout.write(json_text({**where, **event}) + "\n")
    sys.stdout.flush()
    return None if left is None else left - shown.num_rows


def _plain(column: pa.Array) -> list[object]:
    """Values that JSON has a form for. Times are ISO texts by Arrow: what was refused may lie beyond Python's dates."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_temporal(column.type):
        text = column.cast(pa.string())
        return list(pc.replace_substring(text, " ", "T", max_replacements=1).to_pylist())
    try:
        values = column.to_pylist()
        json_text(values)
    except (TypeError, OverflowError, ValueError):
        return [str(value) for value in column]
    return list(values)
