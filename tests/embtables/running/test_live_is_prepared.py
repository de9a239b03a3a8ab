"""What a server computes live is what `data.prepare` writes, bit for bit, on a real log.

The log's invoices are folded one at a time, each after the examples at its time were asked about.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.inputs.where import condition_mask
from embtables.pipelines.config import RunConfig, load_config
from embtables.pipelines.prepare.examples import prepare
from embtables.running import RunningFeatures
from embtables.schema import RunningOptions, SampledNegatives

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "online_retail" / "dcnv2.yaml"
# Of data.files=log/2010-12-*.parquet, as the numpy indexes that preceded running features wrote them.
GOLDEN = {
    "examples": "59781cd477f70d59187698e9e798fd3a",
    "_past/item": "c1b9fe16ad31be74c07176aaabcb4f62",
    "_past/user": "8e4a62dcc973d7a73bb745914472c4a2",
    "_past/user_item": "cc3d9c92b8495ed27183b2c15b1cd352",
}


def prepared(cache: Path, files: str) -> tuple[SampledNegatives, RunConfig, Path]:
    config = load_config(EXAMPLE, [f"data.files={files}"])
    assert config.data.prepare is not None
    return config.data.prepare, config, prepare(config.data.prepare, str(config.data.path), files, cache)


def digest(table: pa.Table) -> str:
    """Of the types, the validity and the bits of the values, however the table is cut into chunks."""
    found = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        kind = column.type.value_type if is_list else column.type  # files call the items of lists by another name
        found.update(f"{name} {kind} {is_list} {column.null_count}".encode())
        if is_list:
            found.update(np.asarray(column.value_lengths(), np.int64).tobytes())
            column = column.flatten()
        if pa.types.is_large_string(column.type) or pa.types.is_string(column.type):
            found.update("\n".join("null" if v is None else f"={v}" for v in column.to_pylist()).encode())
        else:
            found.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
            found.update(column.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
    return found.hexdigest()[:32]


def test_the_prepared_tables_are_those_of_before(tmp_path: Path) -> None:
    _, _, folder = prepared(tmp_path, "log/2010-12-*.parquet")
    found = {name: digest(pq.read_table(folder / f"{name}.parquet", partitioning=None)) for name in GOLDEN}
    assert found == GOLDEN


def invoices(config: RunConfig, of: SampledNegatives, files: str) -> list[pa.Table]:
    """The positives of each invoice, at the time of its first line, in the order of `prepare`."""
    paths = sorted(Path(str(config.data.path)).glob(files))
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    table = table.filter(pa.array(condition_mask(table, of.where)))
    codes = table.column(of.group).combine_chunks().dictionary_encode()
    numbers = codes.indices.to_numpy()
    times = table.column(of.event_time).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    first = np.full(len(codes.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(first, numbers, times)
    place = table.schema.get_field_index(of.event_time)
    table = table.set_column(place, of.event_time, pa.array(first[numbers]).cast(pa.timestamp("us")))
    order = np.lexsort((numbers, first[numbers]))
    table, numbers = table.take(pa.array(order)), numbers[order]
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    return [table.slice(a, b - a) for a, b in zip(starts, [*starts[1:], len(numbers)], strict=True)]


@pytest.mark.parametrize(
    "files",
    ["log/2010-12-*.parquet", pytest.param("log/*.parquet", marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_live_columns_are_the_prepared_ones(tmp_path: Path, files: str) -> None:
    of, config, folder = prepared(tmp_path, files)
    examples = pq.read_table(folder / "examples.parquet").combine_chunks()
    names = examples.column(of.group).to_pylist()
    starts = [n for n in range(len(names)) if n == 0 or names[n] != names[n - 1]]
    places = {names[start]: (start, stop) for start, stop in zip(starts, [*starts[1:], len(names)], strict=True)}
    assert len(places) == len(starts)
    live = RunningFeatures(of.running_features(), RunningOptions(event_time=of.event_time, lateness_seconds=60))
    parts: list[pa.Table] = []
    for lines in invoices(config, of, files):
        start, stop = places.get(lines.column(of.group)[0].as_py(), (0, 0))
        if stop > start:
            parts.append(pa.table(live.columns(examples.slice(start, stop - start))))
        live.fold(lines)
    found = pa.concat_tables(parts)
    right = examples.select(found.column_names)
    assert found.num_rows == examples.num_rows > 10_000
    assert digest(found) == digest(right)
    assert found.equals(right)
    assert live.counts.ignored == {}
    assert live.counts.late_questions == live.counts.late_events == 0
