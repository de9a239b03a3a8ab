"""The drift alarm: while the newest rows are scored badly, what scores them is not published; training goes on."""

from __future__ import annotations

from collections import deque

import numpy as np

from embtables.models.figures import Judged
from embtables.pipelines.config import Drift
from embtables.pipelines.progress import say
from embtables.pipelines.training.metrics_log import MetricsLog

_EPS = 1e-7  # as log loss has it


class DriftWatch:
    """Calibration and normalised entropy of the first label over the newest rows, against their bands."""

    def __init__(self, drift: Drift, log: MetricsLog, *, shown: bool) -> None:
        self._drift = drift
        self._log = log
        self._shown = shown
        self._batches: deque[tuple[int, float, float, float, float]] = deque()  # rows, weight, loss, scores, labels
        self._rows = 0
        self._alarm: str | None = None

    def add(self, rows: Judged) -> None:
        """Judged rows, newest last; batches beyond the window are forgotten."""
        p = np.clip(rows["scores"][:, 0].astype(np.float64), _EPS, 1.0 - _EPS)
        y = rows["labels"][:, 0].astype(np.float64)
        w = rows["weight"].astype(np.float64) if "weight" in (rows.dtype.names or ()) else np.ones(len(p))
        loss = -(y * np.log(p) + (1.0 - y) * np.log1p(-p))
        self._batches.append((len(p), float(w.sum()), float(w @ loss), float(w @ p), float(w @ y)))
        self._rows += len(p)
        while self._rows - self._batches[0][0] >= self._drift.window_rows:
            self._rows -= self._batches.popleft()[0]

    def may_publish(self, step: int) -> bool:
        """Whether nothing is out of its band; says and records when that changes."""
        alarm = self._out_of_band()
        if (alarm is None) != (self._alarm is None):
            self._log.append([{"step": step, "part": "online", "drift": alarm or "over"}])
            if self._shown:
                say(f"step {step}: {alarm}; nothing is published" if alarm else f"step {step}: publishing goes on")
        self._alarm = alarm
        return alarm is None

    def _out_of_band(self) -> str | None:
        if self._rows < self._drift.window_rows:
            return None
        _, weight, loss, scores, labels = (sum(column) for column in zip(*self._batches, strict=True))
        low, high = self._drift.least_calibration, self._drift.greatest_calibration
        calibration = scores / labels if labels > 0.0 else np.inf
        if not low <= calibration <= high:
            return f"calibration of the last {self._rows:,} rows is {calibration:.3g}, not within [{low:g}, {high:g}]"
        mean = labels / weight
        entropy = -(mean * np.log(mean) + (1.0 - mean) * np.log1p(-mean)) if 0.0 < mean < 1.0 else 0.0
        normalised = loss / weight / entropy if entropy > 0.0 else np.inf
        most = self._drift.greatest_entropy
        if normalised > most:
            return f"normalised entropy of the last {self._rows:,} rows is {normalised:.3g}, above {most:g}"
        return None
