"""The positives of a purchase-only log in order of time: a group happens at once, at the time of its first line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.inputs.times import as_microseconds
from embtables.inputs.where import condition_mask
from embtables.pipelines.prepare.past import codes, without_nulls
from embtables.pipelines.prepare.source_columns import check_source, id_columns, source_columns
from embtables.pipelines.sources.files.source import Source
from embtables.schema import EventTime, SampledNegatives

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OrderedPositives:
    """(n,) lines.

    Attributes:
        times: (n,) of their groups, ascending, in microseconds.
        groups: (n,) numbers of their groups.
    """

    table: pa.Table
    times: Int64s
    groups: Int64s


def read_positives(config: SampledNegatives, source: Source, path: str) -> OrderedPositives:
    """All positives of a log.

    Args:
        path: the log's, for errors.

    Raises:
        DataError: no line is a positive, or a column is missing or of the wrong type.
    """
    check_source(config, source, path)
    table = source.read_all(source_columns(config), ids=id_columns(config))
    table = table.filter(pa.array(condition_mask(table, config.where)))
    if table.num_rows == 0:
        raise DataError("data.prepare.where leaves no positives")
    line_times = as_microseconds(EventTime(column=config.event_time), without_nulls(table, config.event_time))
    groups = codes(table, config.group)
    first = np.full(len(groups.values), np.iinfo(np.int64).max)
    np.minimum.at(first, groups.numbers, line_times)
    times = first[groups.numbers]
    order = np.lexsort((groups.numbers, times))
    return OrderedPositives(table.take(pa.array(order)), times[order], groups.numbers[order])
