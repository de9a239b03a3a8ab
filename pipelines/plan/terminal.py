"""A plan for people: tables on stderr."""

from __future__ import annotations

from rich import box
from rich.table import Table as Shown
from rich.text import Text

from embtables.pipelines.plan.plan import Plan
from embtables.pipelines.plan.scenario import Point
from embtables.pipelines.progress import console


def show(plan: Plan) -> None:
    """Prints it on stderr."""
    out = console()
    request, point = plan.request, plan.point
    n = request.workers
    link = "loopback" if request.gbps is None else f"{request.gbps:g} Gbit/s per rank"
    out.print(Text(f"{plan.config.name}: {_ranks(n)}, batch {plan.config.train.batch_size:,}, {link}", style="bold"))
    out.print(f"log: {plan.sample.train_rows:,} rows to train on, {plan.sample.rows:,} of them looked at")
    out.print(_tables(plan))
    out.print(_memory(point))
    out.print(_step(point))
    if n > 1:
        sent = point.traffic
        out.print(
            f"bytes per step and rank: {_size(sent.sent)} sent and received, {_size(sent.busiest)} by the busiest "
            f"(its owner is asked for {point.load.skew:.2f} of the mean)"
        )
    if n > 2:
        out.print("beyond 2 ranks step times are computed from what was measured with two")
    for line in plan.advice.lines:
        out.print(Text(line, style="" if plan.advice.fits else "bold red"))
    if request.memory_gb is not None and plan.advice.fits:
        out.print(f"fits: a rank needs {_size(point.memory.total)} of {_size(request.memory_gb * 1e9)}")


def _ranks(n: int) -> str:
    return "1 process" if n == 1 else f"{n:,} ranks"


def _grid(*columns: str) -> Shown:
    shown = Shown(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(columns):
        shown.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    return shown


def _tables(plan: Plan) -> Shown:
    shown = _grid("table", "dim", "rows", "from", "per rank", "keys/row", "distinct", "times", "zipf")
    for name, table in plan.scenario.job.tables.items():
        found, held = plan.scenario.estimates[name], plan.point.memory.tables[name]
        keys = plan.sample.keys.get(name)
        figures = {} if keys is None else keys.figures()
        times = figures.get("duplicates_per_batch")
        shown.add_row(
            name,
            str(table.dim),
            _number(found.rows),
            f"{found.how}, replicated" if name in plan.point.replicated else found.how,
            _size(held.total),
            *(
                ("", "", "", "")
                if not figures
                else (
                    f"{figures['keys_per_row']:.1f}",
                    _number(figures["distinct_per_batch"]),
                    "-" if times is None else f"{times:.1f}",
                    f"{figures['zipf_exponent']:.2f}",
                )
            ),
        )
    return shown


def _memory(point: Point) -> str:
    m = point.memory
    tables = sum(t.total for t in m.tables.values())
    return (
        f"memory per rank: {_size(m.total)} (tables {_size(tables)}, process {_size(m.process)}, "
        f"reader {_size(m.reader)}, dense net {_size(m.dense)}, messages {_size(m.messages)}); "
        f"while a snapshot is written at worst {_size(m.image)} more"
    )


def _step(point: Point) -> str:
    parts = ", ".join(f"{name} {s * 1e3:.1f}" for name, s in point.time.parts().items() if s >= 5e-5)
    return f"step: {point.time.seconds * 1e3:.1f} ms ({parts}), {point.rows_per_second:,.0f} rows/s"


def _number(value: float) -> str:
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / min(size, 1e3 if name == 'k' else size):.3g}{name}"
    return f"{value:,.0f}"


def _size(value: float) -> str:
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.0f} B"
