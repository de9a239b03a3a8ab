"""Progress in the cell of a notebook: one line of HTML that is updated in place, and stays when it is done."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

UPDATE_EVERY_SECONDS = 0.2


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython on a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class CellProgress:
    """A bar in the cell that is being run.

    Args:
        total: rows to come, if that is known.
    """

    def __init__(self, title: str, total: int | None) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._title = title
        self._total = total
        self._shown = time.monotonic()
        self._last = (0, "-", "")
        self._handle: Any = display(HTML(self._text()), display_id=True)

    def update(self, rows: int, rate: str, figures: str) -> None:
        """Shows where it stands, a few times a second."""
        self._last = (rows, rate, figures)
        if time.monotonic() - self._shown >= UPDATE_EVERY_SECONDS:
            self._show()

    def close(self) -> None:
        """Shows where it ended."""
        self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._handle.update(self._html(self._text()))

    def _text(self) -> str:
        rows, rate, figures = self._last
        ends = "" if self._total is None else f' value="{min(rows, self._total)}" max="{max(self._total, 1)}"'
        of = "" if self._total is None else f" of {self._total:,}"
        said = ", ".join(each for each in (f"{rows:,}{of} rows", f"{rate} rows/s", figures) if each)
        return f"<div><b>{escape(self._title)}</b> <progress{ends}></progress> {escape(said)}</div>"
