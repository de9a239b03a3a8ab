"""Snapshots copied while training goes on: they hold what the tables held when they were captured, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.rows.protocol import Capture
from embtables.schema import Adagrad, Adam, Identity, Normal, Optimizer, RowwiseAdagrad, Sgd, Table
from tests.contents import Arrays, flat, flat_content, same

OPTIMIZERS: list[Optimizer] = [
    Sgd(learning_rate=0.1),
    Adagrad(learning_rate=0.1),
    RowwiseAdagrad(learning_rate=0.1),
    Adam(learning_rate=0.1),
]


def tables(optimizer: Optimizer, rows: int) -> Tables:
    kept: list[Table] = [
        CollisionlessTable(name="c", dim=5, optimizer=optimizer, initializer=Normal(std=0.1), max_rows=rows),
        FixedTable(name="f", dim=12, num_rows=rows, optimizer=optimizer, initializer=Normal(std=0.1)),
    ]
    readers = [Feature(name=t.name, table=t.name, encoder=Identity()) for t in kept]
    return Tables(kept, readers, seed=3)


def learn(made: Tables, generator: torch.Generator, rows: int, n: int) -> None:
    """One step; ids beyond the rows make the collisionless table evict."""
    keys = [torch.randint(2 * rows, (n,), generator=generator), torch.randint(rows, (n,), generator=generator)]
    found, kept = made.rows.train_rows([0, 1], keys)
    kept.add_gradients([torch.randn(f.shape, generator=generator) for f in found])
    made.step()


def contents(captured: dict[str, Capture]) -> Arrays:
    return {f"{t}/{n}": v for t, c in captured.items() for n, v in flat_content(c.content()).items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
def test_a_capture_holds_what_was_there_whatever_comes_after(optimizer: Optimizer) -> None:
    made, generator = tables(optimizer, 300), torch.Generator().manual_seed(0)
    for _ in range(5):
        learn(made, generator, 300, 100)
    made.draw_cut()
    held = flat(made)
    captured = made.capture()
    for _ in range(5):
        learn(made, generator, 300, 100)
    some = torch.arange(50)
    made.delete("c", some)
    made.delete("f", some)
    made.set("f", some, torch.ones(50, 12))
    made.set("c", some, torch.ones(50, 5))
    made.rows.write(1, "weight", some + 100, torch.zeros(50, 12))
    assert same(contents(captured), held)
    assert not same(flat(made), held)


def test_without_a_cut_drawn_just_before_it_holds_the_same() -> None:
    made, generator = tables(OPTIMIZERS[2], 300), torch.Generator().manual_seed(0)
    made.draw_cut()
    learn(made, generator, 300, 100)
    held, captured = flat(made), made.capture()
    learn(made, generator, 300, 100)
    assert same(contents(captured), held)


@pytest.mark.parametrize(
    "end",
    [lambda made: made.load([made.content()]), lambda made: made.capture()],
    ids=["the tables are loaded", "another is taken"],
)
def test_a_capture_survives_what_ends_it(end: Callable[[Tables], object]) -> None:
    made, generator = tables(OPTIMIZERS[1], 300), torch.Generator().manual_seed(0)
    learn(made, generator, 300, 200)
    made.draw_cut()
    held = flat(made)
    captured = made.capture()
    learn(made, generator, 300, 200)
    end(made)
    learn(made, generator, 300, 200)
    assert same(contents(captured), held)


def test_a_capture_that_nobody_copies_costs_the_tables_nothing() -> None:
    made, generator = tables(OPTIMIZERS[0], 300), torch.Generator().manual_seed(0)
    follower = made.cuts.consumer("follower")
    for _ in range(20):
        cut = made.draw_cut()
        made.capture()
        learn(made, generator, 300, 50)
        follower.hold(cut)
    held = flat(made)
    made.draw_cut()
    assert same(contents(made.capture()), held)


def test_copied_on_another_thread_while_training_goes_on() -> None:
    rows = 60_000
    made, generator = tables(OPTIMIZERS[2], rows), torch.Generator().manual_seed(0)
    for _ in range(8):
        learn(made, generator, rows, 20_000)
    for _ in range(3):
        made.draw_cut()
        held = flat(made)
        captured, found = made.capture(), []
        copying = threading.Thread(target=lambda c=captured, f=found: f.append(contents(c)))  # type: ignore[misc]
        copying.start()
        while copying.is_alive():
            learn(made, generator, rows, 2_000)
        assert same(found[0], held)


def test_a_closed_capture_is_refused_and_saves_nothing_more() -> None:
    made, generator = tables(OPTIMIZERS[0], 300), torch.Generator().manual_seed(0)
    learn(made, generator, 300, 100)
    made.draw_cut()
    captured = made.capture()
    first, second = contents(captured), contents(captured)
    assert same(first, second)
    for capture in captured.values():
        capture.close()
    learn(made, generator, 300, 100)
    with pytest.raises(ValueError, match="the capture is closed"):
        captured["c"].content()


def test_a_capture_that_is_closed_while_a_thread_reads_it_ends_the_read() -> None:
    rows = 60_000
    made, generator = tables(OPTIMIZERS[0], rows), torch.Generator().manual_seed(0)
    learn(made, generator, rows, 40_000)
    made.draw_cut()
    held, found = flat(made), list[Arrays]()

    def read(captured: dict[str, Capture], begun: threading.Event) -> None:
        begun.set()
        try:
            found.append(contents(captured))
        except ValueError as error:
            assert "closed" in str(error)

    for _ in range(20):
        captured, begun = made.capture(), threading.Event()
        reader = threading.Thread(target=read, args=(captured, begun))
        reader.start()
        begun.wait()
        for capture in captured.values():
            capture.close()
        learn(made, generator, rows, 1000)
        reader.join()
        made.load([{name: of.content() for name, of in made.capture().items()}])
        made.draw_cut()
        assert all(same(each, held) for each in found)
        held, found = flat(made), []


def test_lookups_that_never_became_a_step_are_forgotten_by_a_load() -> None:
    made, other = tables(OPTIMIZERS[0], 300), tables(OPTIMIZERS[0], 300)
    generator = torch.Generator().manual_seed(0)
    learn(made, generator, 300, 100)
    chain = [made.content()]
    cut = made.draw_cut()
    made.delete("c", torch.arange(200))
    chain.append(made.content(cut))
    other.rows.train_rows([0, 1], [torch.arange(500), torch.arange(300)])
    found, kept = other.rows.train_rows([0, 1], [torch.arange(250), torch.arange(9)])
    kept.add_gradients([torch.ones_like(f) for f in found])
    other.load(chain)
    assert same(flat(other), flat(made))
