"""Two threads over one `Tables`, and a forked child: they wait for each other or get a StateError, never a crash."""

from __future__ import annotations

import subprocess
import sys

import pytest

TWO_THREADS = """
import sys, threading
import numpy as np, torch
from torchrec import KeyedJaggedTensor
from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.errors import StateError
from embtables.schema import Adam, Identity, MinCount, RowwiseAdagrad

torch.set_num_threads(2)
(row_store,) = sys.argv[1:]
STEPS = 150 if row_store == "host" else 5
CALLS = ("get", "set", "keys", "row_quantiles", "weight", "delete", "stats", "infer", "capture", "cut")
CONFIGS = [
    CollisionlessTable(name="grows", dim=16, optimizer=RowwiseAdagrad(learning_rate=0.1)),
    CollisionlessTable(name="waits", dim=8, optimizer=Adam(learning_rate=0.1), admission=MinCount(count=2)),
    FixedTable(name="fixed", dim=4, num_rows=5_000, optimizer=Adam(learning_rate=0.1)),
]
tables = Tables(
    CONFIGS, [Feature(name=c.name, table=c.name, encoder=Identity()) for c in CONFIGS], seed=1, row_store=row_store
)
view = EmbeddingBagCollection.over(tables)
follower = tables.cuts.consumer("follower")
done, refused, calls = threading.Event(), [], [0]


def batch(rng):
    keys = np.concatenate([rng.integers(0, 10 ** 6, 1000), rng.integers(0, 4000, 1000), rng.integers(0, 5000, 1000)])
    return KeyedJaggedTensor([c.name for c in CONFIGS], torch.from_numpy(keys), lengths=torch.ones(3000).long())


def train():
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        try:
            out = view(batch(rng)).values()
            out.backward(torch.ones_like(out))
            tables.step()
        except StateError as error:  # what the other thread did moved rows between forward and backward
            refused.append(error)
            tables.discard()
    done.set()


def other():
    rng = np.random.default_rng(1)
    while not done.is_set() or calls[0] < len(CALLS):
        what = CALLS[calls[0] % len(CALLS)]
        calls[0] += 1
        ids = torch.from_numpy(rng.integers(0, 10 ** 6, 500))
        for config in CONFIGS:
            own = ids % 5000 if config.name == "fixed" else ids
            try:
                if what == "get":
                    assert tables.get(config.name, own).isfinite().all()
                elif what == "keys":
                    keys = tables.keys(config.name)
                    assert keys is None or (keys.diff() > 0).all()
                elif what == "row_quantiles":
                    tables.row_quantiles(config.name)
                elif what == "set":
                    tables.set(config.name, own, torch.zeros(len(own), config.dim))
                elif what == "delete":
                    tables.delete(config.name, own)
                elif what == "weight":
                    assert tables.weight(config.name).isfinite().all()
                elif what == "stats":
                    tables.stats()
                elif what == "infer":
                    with torch.no_grad():
                        assert view(batch(rng)).values().isfinite().all()
                elif what == "cut":
                    follower.hold(tables.draw_cut())
                    break
                else:
                    captured = {name: c.content() for name, c in tables.capture().items()}
                    assert all(np.isfinite(c.columns["weight"]).all() for c in captured.values())
            except StateError as error:
                refused.append(error)


failed = []
threading.excepthook = lambda args: (sys.__excepthook__(*args[:3]), failed.append(args), done.set())
thread = threading.Thread(target=other)
thread.start()
train()
thread.join()
assert not failed
print("calls", calls[0])
"""


@pytest.mark.parametrize("row_store", ["host", "reference"])
def test_a_thread_beside_the_one_that_trains(row_store: str) -> None:
    done = subprocess.run([sys.executable, "-c", TWO_THREADS, row_store], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout.startswith("calls ")


FORKED = """
import os, sys, warnings
import torch
from embtables import CollisionlessTable, Feature, Tables
from embtables.errors import StateError
from embtables.schema import Identity, Sgd

warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of a fork beside threads
torch.set_num_threads(2)
config = CollisionlessTable(name="t", dim=16, optimizer=Sgd(learning_rate=0.1))
feature = Feature(name="t", table="t", encoder=Identity())
tables = Tables([config], [feature], seed=1)
ids, rows = torch.arange(100_000), torch.ones(100_000, 16)
tables.set("t", ids, rows)
child = os.fork()
if child == 0:
    messages = set()
    for use in (
        lambda: tables.get("t", ids),
        lambda: tables.set("t", ids, rows),
        lambda: tables.keys("t"),
        lambda: tables.stats(),
        lambda: tables.capture(),
        lambda: tables.step(),
        lambda: Tables([config], [feature], seed=1),
    ):
        try:
            use()
        except StateError as error:
            messages.add(str(error))
        else:
            print("a use in the child was not refused", flush=True)
    print(*messages, sep="\\n", flush=True)
    sys.exit(3)
_, status = os.waitpid(child, 0)
assert tables.get("t", ids).sum() == 1_600_000
print("child", os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_is_refused_and_exits() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    message, child = done.stdout.splitlines()
    assert "use the start method 'spawn'" in message
    assert child == "child 3"
