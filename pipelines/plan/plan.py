"""`embtables plan`: puts sample, machine and model together, and tells what comes of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embtables.models.build import tables_of
from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.advice import Advice, advise
from embtables.pipelines.plan.calibrate import calibrate, measured_for
from embtables.pipelines.plan.growth import Estimate, estimate
from embtables.pipelines.plan.load import job_of, sampled_name
from embtables.pipelines.plan.machine import Link, Machine, Reading
from embtables.pipelines.plan.request import Asked
from embtables.pipelines.plan.sample import LogSample, read_sample
from embtables.pipelines.plan.scaling import Point, Scenario
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.progress import say
from embtables.schema import CollisionlessTable, Table


@dataclass(frozen=True)
class Plan:
    """The answer."""

    config: RunConfig
    asked: Asked
    sample: LogSample
    scenario: Scenario
    point: Point
    strong: list[Point]
    weak: list[Point]
    advice: Advice

    def to_json(self) -> dict[str, Any]:
        """One object."""
        machine = self.scenario.machine
        return {
            "name": self.config.name,
            "workers": self.asked.workers,
            "batch_size": self.config.train.batch_size,
            "link": self.scenario.link.to_json(),
            "log": {
                "train_rows": self.sample.train_rows,
                "sampled_rows": self.sample.rows,
                "tables": {name: keys.figures() for name, keys in self.sample.keys.items()},
            },
            "tables": {name: self._table(name) for name in self.scenario.job.tables},
            "memory": _memory(self.point),
            "step": _step(self.point),
            "bytes": _bytes(self.point),
            "skew": round(self.point.load.skew, 4),
            "fits": self.advice.fits,
            "advice": list(self.advice.lines),
            "strong_scaling": _curve(self.strong),
            "weak_scaling": _curve(self.weak),
            "machine": machine.model_dump(mode="json"),
        }

    def _table(self, name: str) -> dict[str, Any]:
        table, found = self.scenario.job.tables[name], self.scenario.estimates[name]
        held, load = self.point.memory.tables[name], self.point.load.tables[name]
        return {
            "kind": table.kind,
            "replicated": name in self.point.replicated,
            "dim": table.dim,
            **{
                key: round(value) if key != "error" and isinstance(value, float) else value
                for key, value in asdict(found).items()
            },
            "rows_per_rank": held.num_rows,
            "bytes_per_rank": held.total,
            "keys_of_a_part": round(load.occurrences, 1),
            "distinct_keys_of_a_part": round(load.asked, 1),
        }


def plan(config: RunConfig, asked: Asked, *, shown: bool = True) -> Plan:
    """Reads a sample of the log, measures the machine (or reads its file), and works the plan out.

    Raises:
        ConfigError: something that was asked for cannot be.
        DataError: the log cannot be read, or lacks a column.
        StateError: a probe of the machine failed.
    """
    asked.check()
    given = asked.given_rows(config)
    known = _known(config, asked.machine)
    prepared = with_prepared_data(config, shown=shown)
    sample = read_sample(prepared, asked.sample_rows, shown=shown)
    machine = known if known is not None else _measured(config, asked.machine, sample.reading, shown=shown)
    estimates = {table.name: _estimate(config, table, sample, given) for table in tables_of(config, config.model)}
    job = job_of(config, machine.dense_parameters)
    shuffle = config.data.shuffle
    scenario = Scenario(
        job=job,
        samples=sample.keys,
        estimates=estimates,
        train_rows=sample.train_rows,
        machine=machine,
        link=Link(asked.gbps),
        block_rows=min(config.data.block_rows if shuffle is None else shuffle.buffer_rows, sample.train_rows),
    )
    point = scenario.at(asked.workers)
    part = max(1, round(config.train.batch_size / asked.workers))
    memory = None if asked.memory_gb is None else asked.memory_gb * 1e9
    advice = advise(scenario, point, memory)
    return Plan(config, asked, sample, scenario, point, scenario.curve(), scenario.curve(part), advice)


def _known(config: RunConfig, file: Path | None) -> Machine | None:
    """The constants in a file, where it is there."""
    return Machine.load(file, measured_for(config)) if file is not None and file.exists() else None


def _measured(config: RunConfig, file: Path | None, reading: Reading, *, shown: bool) -> Machine:
    if shown:
        say("measuring this machine: the dense net, tables, messages between two processes")
    machine = calibrate(config, reading)
    if file is not None:
        machine.save(file)
        if shown:
            say(f"its constants are in {file}")
    return machine


def _estimate(config: RunConfig, table: Table, sample: LogSample, given: dict[str, float]) -> Estimate:
    """Rows of a table at the end of the run."""
    name = sampled_name(table.name)
    if not isinstance(table, CollisionlessTable):
        return Estimate(float(table.num_rows), float(table.num_rows), float(table.num_rows), "fixed")
    if name in given:
        rows = min(given[name], float(table.max_rows)) if table.max_rows is not None else given[name]
        return Estimate(rows, rows, rows, "given")
    if table.ttl_seconds is not None and table.trainable and sample.rows_per_second is not None:
        in_ttl = sample.rows_per_second * table.ttl_seconds
        return estimate(table, sample.keys[name], sample.train_rows, config.train.epochs, in_ttl)
    return estimate(table, sample.scattered[name], sample.train_rows, config.train.epochs, None)


def _memory(point: Point) -> dict[str, Any]:
    memory = point.memory
    return {
        "per_rank_bytes": memory.total,
        "tables": sum(t.total for t in memory.tables.values()),
        "process": memory.process,
        "dense": memory.dense,
        "reader": memory.reader,
        "messages": memory.messages,
        "snapshot_at_worst": memory.image,
    }


def _step(point: Point) -> dict[str, Any]:
    parts = {f"{name}_ms": round(seconds * 1e3, 4) for name, seconds in point.time.parts().items()}
    return {
        "ms": round(point.time.seconds * 1e3, 4),
        "rows_per_second": round(point.rows_per_second, 1),
        "bound_by": point.time.bound_by,
        **parts,
    }


def _bytes(point: Point) -> dict[str, Any]:
    sent = point.traffic
    parts = {name: round(getattr(sent, name)) for name in ("keys", "counts", "rows", "gradients", "sizes", "reduced")}
    return {
        "sent_per_rank": round(sent.sent),
        "received_per_rank": round(sent.sent),
        "busiest_rank": round(sent.busiest),
        "all_ranks": round(sent.sent * point.load.ranks),
        **parts,
    }


def _curve(points: list[Point]) -> list[dict[str, Any]]:
    first = points[0].rows_per_second
    return [
        {
            "ranks": p.load.ranks,
            "batch_rows": round(p.load.batch_rows),
            "ms": round(p.time.seconds * 1e3, 3),
            "rows_per_second": round(p.rows_per_second, 1),
            "efficiency": round(p.rows_per_second / first / p.load.ranks, 4),
            "bytes_per_rank": round(p.traffic.sent),
            "memory_per_rank": p.memory.total,
            "skew": round(p.load.skew, 3),
            "bound_by": p.time.bound_by,
            "basis": "like what was measured" if p.load.ranks <= 2 else "computed",
        }
        for p in points
    ]
