"""`compact`: a snapshot and its deltas become one snapshot, in memory bounded by a group of buckets.

which rows there are (keys alone) -> columns streamed into a new version, each block verified first -> committed
-> pins of the version that was compacted move to it -> old versions collected
"""

from __future__ import annotations

from dataclasses import dataclass

from embtables.errors import StateError
from embtables.state.folder.version_folder import LeaseHolder
from embtables.state.format.manifest import Manifest, Purpose
from embtables.state.write.merged_snapshot import write_merged_snapshot


@dataclass(frozen=True, slots=True)
class Compacted:
    """The result of compacting a chain.

    Attributes:
        version: the snapshot.
        chain: what it was made of; only the snapshot, if there was no delta and so nothing was written.
        freed_bytes: size of the files that were removed afterwards.
        pins: by name the older versions that are still pinned: they and the versions they depend on are unchanged.
    """

    version: Manifest
    chain: tuple[Manifest, ...]
    freed_bytes: int
    pins: dict[str, str]


def compact(holder: LeaseHolder, purpose: Purpose, *, keep: int) -> Compacted:
    """Compacts the newest version of a purpose and those it depends on to a snapshot, and collects old versions.

    The snapshot is the next version and holds exactly what the newest one did: rows, waiting keys, dense tensors,
    clocks, and what its writer needs again. Nothing of a key that has no row in it is in its files.

    Args:
        keep: newest versions that stay, besides pinned ones.

    Raises:
        StateError: there is no version; what is read of the chain is damaged; the disk is full or failing, or the
            lease was lost. The chain is then unchanged, and nothing of a new version is left.
    """
    state = holder.state
    newest = state.latest(purpose)
    if newest is None:
        raise StateError(f"there is no {purpose} version", folder=state.folder.root)
    chain = state.chain(purpose, newest.sequence)
    if len(chain) > 1:
        version = write_merged_snapshot(holder, chain)
        for pin in [name for name in state.pins() if state.pinned(name) == (purpose, newest.sequence)]:
            holder.pin(pin, version)
    else:
        version = newest
    try:
        freed = holder.collect({purpose: keep})
    except StateError as error:
        raise StateError(f"{version.name} was written, but {error.message}", **error.path) from error
    pinned = {name: at for name in state.pins() if (at := state.pinned(name)) is not None}
    older = {name: f"{purpose}-{n}" for name, (of, n) in pinned.items() if of == purpose and n < version.sequence}
    return Compacted(version, tuple(chain), freed, older)
