"""What the reference store gives away of a table and takes back: contents of snapshots and deltas, states of keys."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from embtables.keyspace import bucket_order
from embtables.rows.content import TableContent
from embtables.rows.limits import NUM_AGE_BINS
from embtables.rows.protocol import Changes, KeyState
from embtables.rows.reference.arena import Arena, Place
from embtables.rows.reference.key_policy import KeyPolicy


def take(place: Place, arena: Arena, seed: int, changes: Changes | None) -> TableContent:
    """Rows that changed and keys that lost theirs; without `changes` all rows. Copied."""
    policy = place.policy
    if changes is not None:
        keys = changes.keys.numpy()
    elif policy is None:
        keys = place.own_keys().numpy()
    else:
        keys = np.array([key for key in policy.entries if policy.row(key)], np.int64)
    keys = keys[bucket_order(keys, seed)]
    rows = place.rows_of(torch.from_numpy(keys))
    columns = {name: values[rows].numpy() for name, values in arena.columns().items()}
    nothing = np.zeros(len(keys), np.uint32)
    found = TableContent(keys, columns, nothing, nothing, updates=arena.steps)
    if changes is not None:
        found.tombstones = changes.tombstones.numpy()
    if policy is not None:
        _add_policy(policy, arena, seed, found)
    return found


def _add_policy(policy: KeyPolicy, arena: Arena, seed: int, found: TableContent) -> None:
    found.seen = np.array([policy.entries[int(key)].seen for key in found.keys], np.uint32)
    waiting = np.array([k for k in policy.entries if policy.alive(k) and policy.entries[k].row is None], np.int64)
    found.waiting = waiting[bucket_order(waiting, seed)]
    found.waiting_counts = np.array([policy.entries[int(key)].count for key in found.waiting], np.uint32)
    found.waiting_seen = np.array([policy.entries[int(key)].seen for key in found.waiting], np.uint32)
    found.cold = {name: values[:1].clone().numpy() for name, values in arena.columns().items()}
    found.now, found.steps = policy.now, policy.steps
    if policy.sketch is not None:
        found.sketch = policy.sketch.save()


def apply(place: Place, arena: Arena, content: TableContent) -> None:
    """Takes over a content."""
    policy = place.policy
    if policy is None:
        rows = place.rows_of(torch.from_numpy(content.keys.copy()))
    else:
        for key in content.tombstones.tolist():
            policy.remove(key)
        rows = torch.tensor(policy.place(content.keys.tolist(), content.seen.tolist()), dtype=torch.int64)
        waiting = content.waiting.tolist(), content.waiting_counts.tolist(), content.waiting_seen.tolist()
        policy.set_waiting(*waiting)
        policy.now, policy.steps = content.now, content.steps
        if policy.sketch is not None:
            policy.sketch.restore(content.sketch)
        arena.grow(policy.rows_in_use)
    columns = arena.columns()
    if policy is not None:
        for name, values in content.cold.items():
            columns[name][:1] = torch.from_numpy(values.copy())
    for name, values in content.columns.items():
        columns[name][rows] = torch.from_numpy(values.copy())
    arena.steps = content.updates


def key_state(place: Place) -> KeyState | None:
    """What a table knows of its keys; None of a whole fixed one."""
    policy, none = place.policy, torch.empty(0, dtype=torch.int32)
    if policy is None:
        keys = place.keys
        return None if keys is None else KeyState(keys, torch.zeros_like(keys).int(), none.long(), none, none, 0, 0)
    alive = sorted(key for key in policy.entries if policy.alive(key) is not None)
    rows = [key for key in alive if policy.entries[key].row is not None]
    waiting = [key for key in alive if policy.entries[key].row is None]
    return KeyState(
        torch.tensor(rows, dtype=torch.int64),
        _as_int32([policy.entries[key].seen for key in rows]),
        torch.tensor(waiting, dtype=torch.int64),
        _as_int32([policy.entries[key].count for key in waiting]),
        _as_int32([policy.entries[key].seen for key in waiting]),
        policy.now,
        policy.steps,
    )


def age_bins(policy: KeyPolicy, waiting: bool) -> Tensor:
    """How many rows or waiting keys lie in each bin of age."""
    bins = [policy.bin_of(key) for key in policy.held(waiting)]
    return torch.bincount(torch.tensor(bins, dtype=torch.int64), minlength=NUM_AGE_BINS)


def of_age(policy: KeyPolicy, waiting: bool, chosen: int) -> tuple[Tensor, Tensor]:
    """When those in a bin were seen, and the mixes of their keys."""
    found = [policy.order(key) for key in policy.held(waiting) if policy.bin_of(key) == chosen]
    seen, mixes = (np.array([one[i] for one in found], np.uint64).view(np.int64) for i in range(2))
    return torch.from_numpy(seen), torch.from_numpy(mixes)


def _as_int32(values: list[int]) -> Tensor:
    return torch.from_numpy(np.array(values, np.uint32).view(np.int32))
