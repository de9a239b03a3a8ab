"""Training of tables by any number of ranks, each with its part of every batch: the result must not depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, EmbeddingCollection, Feature, FixedTable, Tables
from embtables.schema import Adagrad, Adam, Hash, Identity, MinCount, MultiHash, Probability, RowwiseAdagrad, Sgd
from embtables.shard.world import World

LEARNERS: dict[str, Any] = {
    "sgd": Sgd(learning_rate=0.1),
    "adagrad": Adagrad(learning_rate=0.1, weight_decay=0.01),
    "rowwise_adagrad": RowwiseAdagrad(learning_rate=0.1),
    "adam": Adam(learning_rate=0.01),
}
POLICIES: dict[str, dict[str, Any]] = {
    "fixed": {},
    "replicated": {},
    "some_replicated": {},
    "plain": {},
    "min_count": {"admission": MinCount(count=3, max_waiting=10_000), "cold_row": "trained"},
    "probability": {"admission": Probability(probability=0.4)},
    "ttl": {"ttl_seconds": 40, "admission": MinCount(count=2, max_waiting=50)},
    "max_rows": {"max_rows": 120, "admission": MinCount(count=2, max_waiting=60)},
}
REPLICATED = {"replicated": ("many", "few", "frozen"), "some_replicated": ("few", "frozen")}
FIXED = ("fixed", *REPLICATED)


def tables(policy: str, optimizer: str, world: World | None, row_store: Any = "host") -> Tables:
    """Two tables under a policy and a frozen one, read by pooled features, one of them twice, and by sequences."""
    learns = LEARNERS[optimizer]
    if policy in FIXED:
        many: Any = FixedTable(name="many", dim=8, num_rows=500, optimizer=learns)
        few: Any = FixedTable(name="few", dim=3, num_rows=7, optimizer=learns)
    else:
        many = CollisionlessTable(name="many", dim=8, optimizer=learns, **POLICIES[policy])
        few = CollisionlessTable(name="few", dim=3, optimizer=learns, **POLICIES[policy])
    frozen = FixedTable(name="frozen", dim=4, num_rows=90, optimizer=learns, trainable=False)
    encoder = Identity() if policy not in FIXED else Hash(seed=1)
    features = [
        Feature(name="a", table="many", encoder=encoder, pooling="sum", weights_column="w"),
        Feature(name="b", table="few", encoder=encoder, pooling="mean"),
        Feature(name="c", table="many", encoder=encoder, pooling="mean"),
        Feature(name="d", table="frozen", encoder=MultiHash(num_hashes=2), pooling="sum"),
        Feature(name="s", table="many", encoder=encoder, pooling="none"),
        Feature(name="t", table="few", encoder=encoder, pooling="none"),
    ]
    return Tables(
        [many, few, frozen], features, seed=5, row_store=row_store, world=world, replicated=REPLICATED.get(policy, ())
    )


@dataclass(frozen=True)
class Run:
    """What is trained: see `tables`. `rows` of a batch at most; some batches have none."""

    policy: str
    optimizer: str
    steps: int
    seed: int = 0
    rows: int = 24
    ids: int = 400
    row_store: str = "host"


FEATURES = ("a", "b", "c", "d", "s", "t")


@dataclass(frozen=True)
class _Step:
    """A batch: `lengths` (F, B), `ids` of each feature; where the ranks' parts end; what the outputs' gradients are."""

    lengths: npt.NDArray[np.int64]
    ids: list[npt.NDArray[np.int64]]
    weights: list[npt.NDArray[np.float32]]
    ends: list[int]
    time: int
    seed: int


def _step(run: Run, step: int, size: int) -> _Step:
    rng = np.random.default_rng([run.seed, step])
    b = 0 if step % 9 == 8 else int(rng.integers(1, run.rows))
    lengths = rng.integers(0, 4, (len(FEATURES), b))
    lengths[rng.integers(len(FEATURES))] = 0
    ids = [(rng.zipf(1.3, n) + 3 * step) % run.ids for n in lengths.sum(axis=1)]
    weights = [rng.standard_normal(n).astype(np.float32) for n in lengths.sum(axis=1)]
    parts = np.random.default_rng([run.seed, step, size]).integers(0, b + 1, size - 1)
    return _Step(lengths, ids, weights, [0, *sorted(parts.tolist()), b], 1_000 + 7 * step, int(rng.integers(2**31)))


def _part(step: _Step, rank: int) -> tuple[KeyedJaggedTensor, slice]:
    """The batch's rows of a rank, with which of all they are."""
    own = slice(step.ends[rank], step.ends[rank + 1])
    ids, weights = [], []
    for f in range(len(FEATURES)):
        begins = np.concatenate([[0], np.cumsum(step.lengths[f])])
        span = slice(begins[own.start], begins[own.stop])
        ids.append(step.ids[f][span])
        weights.append(step.weights[f][span])
    part = KeyedJaggedTensor(
        list(FEATURES),
        torch.from_numpy(np.concatenate(ids)),
        weights=torch.from_numpy(np.concatenate(weights)).requires_grad_(),
        lengths=torch.from_numpy(step.lengths[:, own].reshape(-1)).int(),
        stride=own.stop - own.start,
    )
    return part, own


def _gradient(step: _Step, rows: slice, width: int, salt: int) -> torch.Tensor:
    """Of the outputs of some rows of the batch: a function of the row, not of who has it."""
    whole = np.random.default_rng([step.seed, salt]).standard_normal((step.lengths.shape[1], width))
    return torch.from_numpy(whole[rows].astype(np.float32))


def train(world: World | None, run: Run) -> dict[str, Any]:
    """Trains, and returns what this rank's rows read at each step and what it holds at the end."""
    made = tables(run.policy, run.optimizer, world, run.row_store)
    found = learn(made, run, range(run.steps))
    copies = {name: made.weight(name).numpy().tobytes() for name in REPLICATED.get(run.policy, ())}
    return {**found, "held": held(made), "copies": copies, "stats": _stats(made)}


def learn(made: Tables, run: Run, steps: range) -> dict[str, Any]:
    """Takes some steps of a run; what this rank's rows read at each."""
    rank, size = made.world.rank, made.world.size
    pooled, sequences = EmbeddingBagCollection.over(made), EmbeddingCollection.over(made)
    read, norms, of_weights = [], [], []
    for number in steps:
        step = _step(run, number, size)
        part, own = _part(step, rank)
        made.advance(torch.full((own.stop - own.start,), step.time * 1_000_000))
        out = pooled(part).values()
        lists = sequences(part)
        read.append(out.detach().numpy().copy())
        loss = (out * _gradient(step, own, out.shape[1], 0)).sum()
        for n, name in enumerate(("s", "t")):
            values = lists[name].values()
            read.append(values.detach().numpy().copy())
            f = FEATURES.index(name)
            begins = np.concatenate([[0], np.cumsum(step.lengths[f])])
            whole = np.random.default_rng([step.seed, n + 1]).standard_normal((begins[-1], values.shape[1]))
            gradient = torch.from_numpy(whole[begins[own.start] : begins[own.stop]].astype(np.float32))
            if name == "s" or number % 3:  # the other sequence's rows are not always used
                loss = loss + (values * gradient).sum()
        loss.backward()
        of_weights.append(part.weights().grad.numpy().copy())
        norms.append(made.gradient_norm())
        made.step(gradient_scale=min(1.0, 30.0 / max(norms[-1], 1e-9)))
    return {"read": read, "norms": norms, "of_weights": of_weights}


def held(made: Tables) -> dict[str, Any]:
    """What this rank holds, by table."""
    found = {}
    for config in made.configs:
        content = made.table_content(config.name)
        found[config.name] = {
            "keys": content.keys,
            **{f"column {name}": values for name, values in content.columns.items()},
            "seen": content.seen,
            "counts": content.counts,
            "waiting": content.waiting,
            "waiting_counts": content.waiting_counts,
            "waiting_seen": content.waiting_seen,
            "cold": {name: values.copy() for name, values in content.cold.items()},
            "clock": (content.now, content.steps, content.updates),
        }
    return found


def _stats(made: Tables) -> dict[str, Any]:
    stats = made.stats()
    return {
        name: (each.rows, {n: c for n, c in each.counts.items() if n != "expired"}, made.row_quantiles(name))
        for name, each in stats.items()
    }


def _in_order(held: list[dict[str, Any]], by: str, names: list[str]) -> dict[str, Any]:
    keys = np.concatenate([each[by] for each in held])
    order = np.argsort(keys)
    assert len(np.unique(keys)) == len(keys), "two ranks hold a key"
    return {name: np.concatenate([each[name] for each in held])[order] for name in names}


def assert_same(found: list[dict[str, Any]], whole: dict[str, Any], tolerance: float) -> None:
    """What several ranks trained is what one did."""
    assert_same_held([each["held"] for each in found], whole["held"], tolerance)
    for step, expected in enumerate(whole["read"]):
        own = np.concatenate([each["read"][step] for each in found])
        np.testing.assert_allclose(own, expected, atol=tolerance, err_msg=f"read {step}")
    for each in found:
        np.testing.assert_allclose(each["norms"], whole["norms"], rtol=1e-4)
        assert each["stats"] == whole["stats"]
        assert each["copies"] == found[0]["copies"], "the ranks' copies of a replicated table differ"


def assert_same_held(found: list[dict[str, Any]], whole: dict[str, Any], tolerance: float) -> None:
    """What several ranks hold is what one does."""
    for table, expected in whole.items():
        held = [each[table] for each in found]
        columns = [name for name in expected if name.startswith("column ")]
        for by, names in (
            ("keys", ["keys", "seen", "counts", *columns]),
            ("waiting", ["waiting", "waiting_counts", "waiting_seen"]),
        ):
            ours, theirs = _in_order(held, by, names), _in_order([expected], by, names)
            for name in names:
                if name in columns:
                    near = {"atol": tolerance, "rtol": tolerance, "err_msg": f"{table} {name}"}
                    np.testing.assert_allclose(ours[name], theirs[name], **near)
                else:
                    assert ours[name].tolist() == theirs[name].tolist(), f"{table} {name}"
        for each in held:
            assert each["clock"] == expected["clock"], table
            for name, values in expected["cold"].items():
                near = {"atol": tolerance, "rtol": tolerance, "err_msg": f"{table} cold {name}"}
                np.testing.assert_allclose(each["cold"][name], values, **near)
                assert each["cold"][name].tobytes() == held[0]["cold"][name].tobytes(), "the ranks' cold rows differ"
