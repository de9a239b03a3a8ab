"""Figures of a run as it goes: metrics.jsonl (one JSON object per line) and TensorBoard events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from embtables.pipelines.progress import say
from embtables.pipelines.run_place import RunPlace

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """Collects losses between flushes; `start_step` is where the run stands, so TensorBoard drops what is repeated.

    Args:
        writes: with several ranks, only one does.
    """

    def __init__(self, run: RunPlace, start_step: int, *, writes: bool = True) -> None:
        self._run = run
        self._writes = writes
        self._start_step = start_step
        self._held: list[dict[str, Any]] = []
        self._events: SummaryWriter | None = None
        self._writes_events = writes and run.tensorboard is not None
        self._losses: list[torch.Tensor] = []
        self._rows = 0
        self._since = time.perf_counter()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self.append([])
        if self._held:
            say(f"warning: the last {len(self._held)} lines of figures are lost")
        if self._events is not None:
            with self._outliving("TensorBoard's last events are lost"):
                self._events.close()

    def add(self, loss: torch.Tensor, rows: int) -> None:
        """One batch's loss (a scalar) and its rows."""
        self._losses.append(loss)
        self._rows += rows

    def flush(self, step: int, epoch: int) -> str:
        """Writes the mean loss and the rate since the last flush; returns them as text for the progress bar."""
        now = time.perf_counter()
        loss = float(torch.stack(self._losses).mean())
        rate = self._rows / max(now - self._since, 1e-9)
        self._losses, self._rows, self._since = [], 0, now
        record = {"step": step, "epoch": epoch, "part": "train", "loss": loss, "rows_per_second": round(rate, 1)}
        self.append([record])
        self._scalars("train", {"loss": loss, "rows_per_second": rate}, step)
        return f"loss {loss:.4f}"

    def evaluated(self, step: int, epoch: int, part: str, figures: dict[str, Any]) -> None:
        """Writes the figures of one evaluation."""
        self.append([{"step": step, "epoch": epoch, "part": part, **figures}])
        self._scalars(part, figures, step)
        self._since = time.perf_counter()

    def append(self, records: list[dict[str, Any]]) -> None:
        """Writes lines to metrics.jsonl; if the disk refuses them they are written with the next ones."""
        if not self._writes:
            return
        reported = bool(self._held)
        self._held += records
        with self._outliving(None if reported else "figures are kept until there is room"):
            self._run.append_metrics(self._held)
            self._held = []

    def _scalars(self, part: str, figures: dict[str, Any], step: int) -> None:
        if not self._writes_events:
            return
        events, self._events, self._writes_events = self._events, None, False
        with self._outliving("TensorBoard's events are left out from here on"):
            events = events or self._open_events()
            for name, value in figures.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    events.add_scalar(f"{part}/{name}", value, step)
            self._events, self._writes_events = events, True

    def _open_events(self) -> SummaryWriter:
        # Imported when there is something to write: the first step of a run does not wait for TensorBoard.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._run.tensorboard), purge_step=self._start_step or None)

    @contextmanager
    def _outliving(self, what: str | None) -> Iterator[None]:
        """A failing disk does not end training; `what` is printed, unless it was printed already."""
        try:
            yield
        except OSError as error:
            if what is not None:
                say(f"warning: cannot write to {self._run.path}: {error.strerror or error}; {what}, training goes on")
