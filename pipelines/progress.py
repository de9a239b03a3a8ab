"""Progress for the user while rows are processed: on a terminal a rich bar on stderr, in a notebook a bar in the cell,
elsewhere some lines on stderr.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embtables.pipelines.notebook import CellProgress, in_notebook

LINE_EVERY_SECONDS = 10.0


class RowProgress:
    """Counts rows towards a total and shows rows/s, the time left and the latest figures."""

    def __init__(self, title: str, total_rows: int | None, *, shown: bool = True) -> None:
        self._console = console()
        self._title = title
        self._total = total_rows
        self._rows = 0
        self._figures = ""
        self._started = time.monotonic()
        self._last_line = self._started
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._shown = shown
        self._cell: CellProgress | None = None
        if shown and in_notebook():
            self._cell = CellProgress(title, total_rows)
        elif shown and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]} rows/s"))
            times = (
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
            )
            self._bar = Progress(*columns, *times, console=self._console, transient=True)
            self._task = self._bar.add_task(title, total=total_rows, rate="-", figures="")

    def __enter__(self) -> RowProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._cell is not None:
            self._cell.close()

    def advance(self, rows: int, figures: str | None = None) -> None:
        """Adds `rows` that were done; `figures` is shown beside the bar until the next ones."""
        self._rows += rows
        self._figures = figures if figures is not None else self._figures
        now = time.monotonic()
        rate = f"{self._rows / max(now - self._started, 1e-9):,.0f}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=rows, rate=rate, figures=self._figures)
        elif self._cell is not None:
            self._cell.update(self._rows, rate, self._figures)
        elif self._shown and now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            of = f" of {self._total:,}" if self._total else ""
            left = f", {self._eta(now):.0f} s left" if self._total else ""
            self._console.print(f"{self._title}: {self._rows:,}{of} rows, {rate} rows/s{left} {self._figures}")

    def _eta(self, now: float) -> float:
        assert self._total is not None
        return (now - self._started) / max(self._rows, 1) * max(self._total - self._rows, 0)


def console(*, soft_wrap: bool = False) -> Console:
    """stderr for people. Text is shown as it is: names and values of files may look like rich's markup."""
    return Console(stderr=True, highlight=False, soft_wrap=soft_wrap, markup=False, emoji=False)


def say(text: str) -> None:
    """One line for the user, on stderr."""
    console(soft_wrap=True).print(text)
