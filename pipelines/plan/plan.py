"""`embtables plan`: puts sample, machine and model together; the request and the answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embtables.errors import ConfigError
from embtables.keyspace import NUM_BUCKETS
from embtables.models.build import tables_of
from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.calibrate import calibrate, measured_for, untimed
from embtables.pipelines.plan.keys import Estimate, estimate
from embtables.pipelines.plan.load import job_of, sampled_name
from embtables.pipelines.plan.machine import Link, Machine, Reading
from embtables.pipelines.plan.sample import LogSample, read_sample
from embtables.pipelines.plan.scenario import Advice, Point, Scenario, advise
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.progress import say
from embtables.rows.optimizers import optimizer_spec
from embtables.schema import CollisionlessTable, Table


@dataclass(frozen=True)
class PlanRequest:
    """What a plan is asked for.

    Attributes:
        workers: ranks, 1 to 1,024.
        gbps: Gbit/s of each rank's link; None: as fast as this machine's loopback.
        memory_gb: GB of each rank; None: not looked at.
        sample_rows: rows of the log to read.
        rows: TABLE=NUMBER, in place of what the sample says.
        machine: file of constants; if it is missing, they are measured and written to it. None: they are measured.
    """

    workers: int = 1
    gbps: float | None = None
    memory_gb: float | None = None
    sample_rows: int = 500_000
    rows: tuple[str, ...] = ()
    machine: Path | None = None

    def check(self) -> None:
        """Raises ConfigError for what cannot be."""
        if not 1 <= self.workers <= NUM_BUCKETS:
            raise ConfigError(
                f"--workers takes 1 to {NUM_BUCKETS:,}, the number of buckets of keys; received {self.workers:,}"
            )
        for option, value in (("--bandwidth-gbps", self.gbps), ("--memory-gb", self.memory_gb)):
            if value is not None and not 0.0 < value < float("inf"):
                raise ConfigError(f"{option} takes a number above 0, received {value:g}")
        if self.sample_rows < 1:
            raise ConfigError(f"--sample-rows takes a number of at least 1, received {self.sample_rows}")

    def stated_rows(self, config: RunConfig) -> dict[str, float]:
        """What `--rows TABLE=NUMBER` says. Raises ConfigError if it names no table or gives no number."""
        known = {table.name for table in config.tables}
        found = {}
        for text in self.rows:
            name, sign, number = text.partition("=")
            if not sign:
                raise ConfigError(f"--rows takes TABLE=NUMBER, received {text!r}; for example --rows item=1e9")
            if name not in known:
                raise ConfigError(f"--rows: there is no table '{name}'; there are: {', '.join(sorted(known))}")
            try:
                found[name] = float(number)
            except ValueError:
                found[name] = -1.0
            if not 0.0 <= found[name] < 2.0**63:
                raise ConfigError(f"--rows {name}: takes a number of rows of at least 0, received {number!r}")
        return found


@dataclass(frozen=True)
class Plan:
    """The answer.

    Attributes:
        scenario: the run at any number of ranks.
        point: the run at the number of ranks that was requested.
    """

    config: RunConfig
    request: PlanRequest
    sample: LogSample
    scenario: Scenario
    point: Point
    advice: Advice

    def to_json(self) -> dict[str, Any]:
        """One object."""
        machine = self.scenario.machine
        return {
            "name": self.config.name,
            "workers": self.request.workers,
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


def plan(config: RunConfig, request: PlanRequest, *, timed: bool = True, shown: bool = True) -> Plan:
    """Reads a sample of the log, measures the machine (or reads its file), and works the plan out.

    Args:
        timed: false: nothing is timed, which takes most of the time: the plan is of rows and memory alone.

    Raises:
        ConfigError: something that was requested is impossible, or an optimizer is not one of the host row store.
        DataError: the log cannot be read, or lacks a column.
        StateError: a probe of the machine failed.
    """
    request.check()
    _refuse_optimizers(config)
    stated = request.stated_rows(config)
    known = _known(config, request.machine) if timed else untimed(config)
    prepared = with_prepared_data(config, shown=shown)
    sample = read_sample(prepared, request.sample_rows, shown=shown)
    machine = known if known is not None else _measured(config, request.machine, sample.reading, shown=shown)
    if not timed:
        machine = machine.model_copy(update={"reading": sample.reading})
    estimates = {table.name: _estimate(config, table, sample, stated) for table in tables_of(config, config.model)}
    job = job_of(config, machine.dense_parameters)
    shuffle = config.data.shuffle
    scenario = Scenario(
        job=job,
        samples=sample.keys,
        estimates=estimates,
        train_rows=sample.train_rows,
        machine=machine,
        link=Link(request.gbps),
        block_rows=min(config.data.block_rows if shuffle is None else shuffle.buffer_rows, sample.train_rows),
    )
    point = scenario.at(request.workers)
    memory = None if request.memory_gb is None else request.memory_gb * 1e9
    return Plan(config, request, sample, scenario, point, advise(scenario, point, memory))


def _refuse_optimizers(config: RunConfig) -> None:
    """Raises ConfigError for an optimizer of other row stores: bytes and seconds are those of the host store."""
    for table in config.tables:
        if optimizer_spec(table.optimizer).native_rule is None:
            raise ConfigError(
                "embtables plan predicts only row_store: host, which does not support optimizer "
                f"'{table.optimizer.kind}'; plan with one that it supports, for example "
                f"--set tables.{table.name}.optimizer.kind=adagrad",
                table=table.name,
            )


def _known(config: RunConfig, file: Path | None) -> Machine | None:
    """The constants in a file, if it is there."""
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


def _estimate(config: RunConfig, table: Table, sample: LogSample, stated: dict[str, float]) -> Estimate:
    """Rows of a table at the end of the run."""
    name = sampled_name(table.name)
    if not isinstance(table, CollisionlessTable):
        return Estimate(float(table.num_rows), float(table.num_rows), float(table.num_rows), "fixed")
    if name in stated:
        rows = min(stated[name], float(table.max_rows)) if table.max_rows is not None else stated[name]
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
