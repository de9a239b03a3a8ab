"""Figures of a run as it goes: metrics.jsonl (one JSON object a line) and TensorBoard events."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from pipelines.run_dir import RunDir


class MetricsLog:
    """Collects losses between flushes; `start_step` is where the run stands, so TensorBoard drops what is repeated.

    Args:
        writes: of several ranks one does.
    """

    def __init__(self, run: RunDir, start_step: int, *, writes: bool = True) -> None:
        self._run = run
        purge = start_step if start_step else None
        self._writer = SummaryWriter(str(run.tensorboard), purge_step=purge) if writes else None
        self._losses: list[torch.Tensor] = []
        self._rows = 0
        self._since = time.perf_counter()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

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
        if self._writer is not None:
            self._run.append_metrics(record)
        self._scalars("train", {"loss": loss, "rows_per_second": rate}, step)
        return f"loss {loss:.4f}"

    def evaluated(self, step: int, epoch: int, part: str, figures: dict[str, Any]) -> None:
        """Writes the figures of one evaluation."""
        if self._writer is not None:
            self._run.append_metrics({"step": step, "epoch": epoch, "part": part, **figures})
        self._scalars(part, figures, step)
        self._since = time.perf_counter()

    def _scalars(self, part: str, figures: dict[str, Any], step: int) -> None:
        for name, value in figures.items():
            if self._writer is not None and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"{part}/{name}", value, step)
