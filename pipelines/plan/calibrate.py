"""Measures the constants of this machine, in processes of their own: one alone, then two at once."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from embtables.errors import StateError
from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.machine import Machine, Point, Rates, Reading, Wire, Work

_TIMEOUT_SECONDS = 300
_DEFAULT_CACHE = 32 << 20
# Shares of the configured batch at which the dense net is measured: a part of it at so many ranks.
_PARTS = (1, 2, 8, 64, 1024)


def measured_for(config: RunConfig) -> str:
    """Digest of what the dense net and the reading of a configuration depend on."""
    dims = {table.name: table.dim for table in config.tables}
    content = {
        "model": config.model.model_dump(mode="json"),
        "features": [f.model_dump(mode="json") for f in config.features],
        "dims": dims,
        "dense": [d.model_dump(mode="json") for d in config.dense],
        "labels": len(config.labels),
        "data": config.data.model_dump(mode="json", exclude={"path"}),
        "threads": config.train.threads,
        "precision": config.train.precision,
        "batch_size": config.train.batch_size,
    }
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def calibrate(config: RunConfig, reading: Reading) -> Machine:
    """Measures this machine. Raises StateError if a probe fails."""
    cores, cache = len(os.sched_getaffinity(0)), _cache_bytes()
    alone = config.train.threads or cores
    rank = config.train.threads or 1
    (one,) = _probe(config, alone, cache, 1)
    first, second = _probe(config, rank, cache, 2)
    assert first.wire is not None
    return Machine(
        measured_for=measured_for(config),
        cores=cores,
        cache_bytes=cache,
        alone=one.rates,
        rank=_slower(first.rates, second.rates),
        wire=first.wire,
        reading=reading,
        dense_parameters=one.dense_parameters,
    )


def untimed(config: RunConfig) -> Machine:
    """This machine without a measurement: what a process takes of its memory is right, and work takes no time.

    Call it before a log is read: the process is this one, as it is.
    """
    from embtables.pipelines.plan import probes

    parameters = probes.dense_parameters(config)
    nothing = Work()
    rates = Rates(
        threads=1,
        dense=(Point(rows=1, seconds=0.0),),
        tables=nothing,
        asking=nothing,
        owning=nothing,
        miss=nothing,
        made=0.0,
        base_bytes=_resident_bytes(),
    )
    return Machine(
        measured_for=measured_for(config),
        cores=len(os.sched_getaffinity(0)),
        cache_bytes=_cache_bytes(),
        alone=rates,
        rank=rates,
        wire=Wire(exchange=0.0, wait=0.0, message=0.0, byte=0.0, reduction=0.0, reduced_byte=0.0),
        reading=Reading(decode=0.0, convert=0.0, alone=0.0, batch=0.0, bytes_per_row=0.0, converted_bytes=0.0),
        dense_parameters=parameters,
    )


def _slower(a: Rates, b: Rates) -> Rates:
    """Of the two that worked at once, the one whose dense net took longer: a step waits for it."""
    return a if a.dense[-1].seconds >= b.dense[-1].seconds else b


def _cache_bytes() -> int:
    for index in (3, 2):
        path = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size")
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text().strip().rstrip("K")) << 10
    return _DEFAULT_CACHE


@dataclass(frozen=True)
class _Found:
    rates: Rates
    dense_parameters: int
    wire: Wire | None


def _probe(config: RunConfig, threads: int, cache: int, size: int) -> list[_Found]:
    """Runs the probes in `size` processes at once."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(size):
            here, there = context.Pipe()
            arguments = (config, threads, cache, rank, size, f"{folder}/meet", there)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            started.append((process, here))
        try:
            return [_received(pipe) for _, pipe in started]
        finally:
            for process, _ in started:
                process.join(1)
                process.kill()
                process.join()


def _received(pipe: Connection) -> _Found:
    if not pipe.poll(_TIMEOUT_SECONDS):
        raise StateError(f"a probe of this machine took longer than {_TIMEOUT_SECONDS} s; is it busy?")
    try:
        found = pipe.recv()
    except EOFError:
        raise StateError("a probe of this machine has ended without an answer; is there enough memory?") from None
    if isinstance(found, str):
        raise StateError(f"a probe of this machine failed: {found}")
    assert isinstance(found, _Found)
    return found


def _serve(config: RunConfig, threads: int, cache: int, rank: int, size: int, meet: str, pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    try:
        pipe.send(_measure(config, threads, cache, rank, size, meet))
    except Exception as error:  # the process that asked reports it
        pipe.send(f"{type(error).__name__}: {error}")


def _measure(config: RunConfig, threads: int, cache: int, rank: int, size: int, meet: str) -> _Found:
    import torch
    import torch.distributed as dist

    from embtables.pipelines.plan import probes
    from embtables.shard.world import ProcessGroup

    torch.set_num_threads(threads)
    with _group(rank, size, meet):
        wait = (lambda: None) if size == 1 else (lambda: _barrier(dist))
        batch = config.train.batch_size
        points, parameters = probes.dense(config, sorted({max(1, batch // part) for part in _PARTS}), wait)
        base = _resident_bytes()
        tables = probes.tables(cache, wait)
        wire = probes.wire(ProcessGroup()) if size > 1 else None
    rates = Rates(
        threads=threads,
        dense=tuple(points),
        tables=tables.held,
        asking=tables.asking,
        owning=tables.owning,
        miss=tables.miss,
        made=tables.made,
        base_bytes=base,
    )
    return _Found(rates, parameters, wire)


def _barrier(dist: Any) -> None:
    dist.barrier()


@contextlib.contextmanager
def _group(rank: int, size: int, meet: str) -> Iterator[None]:
    if size == 1:
        yield
        return
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    timeout = datetime.timedelta(seconds=_TIMEOUT_SECONDS)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size, timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10
