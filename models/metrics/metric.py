"""`Metric`: figures of one stream of predictions; `register_metric` adds some, also from outside the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embtables.errors import ConfigError
from embtables.given import need

Floats = npt.NDArray[np.floating]
Groups = npt.NDArray[np.int64]
NO_GROUP = np.iinfo(np.int64).min
"""The group of a row whose group column is null: it belongs to none."""


class Metric(Protocol):
    """Accumulates predictions batch by batch."""

    def update(self, scores: Floats, labels: Floats, weights: Floats | None, groups: Groups | None) -> None:
        """Adds rows: scores (n,), labels (n,) in [0, 1], weights (n,) or None for ones, groups (n,) or None. A row
        whose group is null has -2^63 (`NO_GROUP`).

        The arrays may be kept: nobody changes them afterwards.
        """

    def compute(self) -> Mapping[str, Any]:
        """The figures so far, by name, as plain numbers; None if one is undefined."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A kind of metric; docs/how-to-add.md has an example.

    Attributes:
        name: the metric's name, unique.
        make: makes a metric that has no rows yet.
        larger_is_better: the figures that may decide which version is best, and which way.
        of_order: the figures that depend only on the order of scores; a baseline column has these.
    """

    name: str
    make: Callable[[], Metric]
    larger_is_better: Mapping[str, bool] = field(default_factory=dict)
    of_order: frozenset[str] = frozenset()


METRICS: dict[str, MetricSpec] = {}


def register_metric(spec: MetricSpec) -> None:
    """Makes a metric part of every evaluation, and its figures known to `train.early_stopping.metric`.

    Raises:
        ConfigError: it is no MetricSpec, or a metric has this name, or one of its figures, already.
    """
    need(spec, MetricSpec, "spec", "a MetricSpec")
    if spec.name in METRICS:
        raise ConfigError(f"there is a metric '{spec.name}' already")
    for figure in spec.larger_is_better:
        for other in METRICS.values():
            if figure in other.larger_is_better:
                raise ConfigError(f"metric '{other.name}' has a figure '{figure}' already")
    METRICS[spec.name] = spec


def forget_metric(name: str) -> None:
    """Takes a registered metric back, if it is there."""
    METRICS.pop(name, None)


@dataclass(frozen=True, slots=True)
class Monitor:
    """The figure that decides which version is best."""

    figure: str
    larger_is_better: bool

    def gain(self, value: float) -> float:
        """The figure's value as a number of which a larger one is better."""
        return value if self.larger_is_better else -value


def monitor_of(figure: str) -> Monitor:
    """How to monitor a figure. Raises ConfigError if no metric has it, or where it has no better."""
    known = {name: larger for spec in METRICS.values() for name, larger in spec.larger_is_better.items()}
    if figure not in known:
        raise ConfigError(f"there is no figure '{figure}' to monitor; there are: {', '.join(known)}")
    return Monitor(figure, known[figure])
