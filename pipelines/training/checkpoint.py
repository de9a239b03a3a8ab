"""Checkpoints of a run: versions in its `checkpoints/` folder (docs/format.md), the best one pinned.

What a checkpoint holds besides the tables: dense tensors and random state, the run's state, its fitted transforms, and
the part of the configuration that all of these depend on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from embtables.errors import StateError, TrainingError
from embtables.ids import Artifacts
from embtables.models.dense import dense_tensors
from embtables.pipelines.training.learner import Learner
from embtables.shard.world import World
from embtables.state.folder.protocol import Folder
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import parse_side_file, side_files_of
from embtables.state.read.find import find
from embtables.state.read.load import load as load_chain
from embtables.state.read.range_reader import RangeReader
from embtables.state.read.version_reader import read_artifacts

Which = Literal["last", "best"]


def find_on_all_ranks(world: World, folder: Path | Folder, which: Which) -> list[Manifest]:
    """As `find`, the same at every rank: rank 0 says which version it is."""
    if world.size == 1:
        return find(folder, which)
    own = find(folder, which) if world.rank == 0 else []
    said = json.dumps([own[-1].purpose, own[-1].sequence]).encode() if own else b""
    purpose, sequence = json.loads(world.broadcast_bytes(said))
    return own or StateFolder(folder).chain(purpose, sequence)


def artifacts(folder: Path | Folder, chain: list[Manifest]) -> dict[str, Artifacts]:
    """The data of encoders in a checkpoint, by feature. Raises StateError if a file is missing or damaged."""
    return read_artifacts(StateFolder(folder), chain[0])


def load(folder: Path | Folder, chain: list[Manifest], learner: Learner) -> None:
    """Puts a checkpoint's tables and tensors into a learner; `run_content` has what else it holds."""
    version = load_chain(StateFolder(folder), chain, learner.tables, learner.world.buckets())
    try:
        learner.load_dense({name: torch.from_numpy(values.copy()) for name, values in version.tensors.items()})
    except StateError as error:
        raise StateError(error.message, version=chain[-1].name, **error.path) from error


@dataclass(frozen=True, slots=True)
class ReaderFiles:
    """What readers of events go on from besides their position: files of a version.

    Attributes:
        versions: the folder.
        chain: that ends with the version.
        files: by table of a partition (`events.0`) its file.
    """

    versions: StateFolder
    chain: Sequence[Manifest]
    files: Mapping[str, str]

    def tables(self, partitions: Collection[int]) -> dict[str, pa.Table]:
        """Those of some partitions, by name. Raises StateError where a file is damaged or missing."""
        having, found = side_files_of(self.chain), {}
        for name, file in self.files.items():
            if name.rpartition(".")[2] not in map(str, partitions):
                continue
            if file not in having:
                version = self.chain[-1].name
                raise StateError(f"lacks the file of the reader's '{name}'", version=version, file=file)
            reader = RangeReader(self.versions, having[file], file)
            found[name] = parse_side_file(reader.read_all(), reader.path)
        return found


def refuse_not_finite(learner: Learner, step: int) -> None:
    """Raises TrainingError if a dense weight is not finite: the loss tells a step later, which a version would not live
    to see. The same at all ranks."""
    for name, value in learner.model.named_parameters():
        if not bool(value.isfinite().all()):
            raise TrainingError(
                f"the dense weights {name} are not finite; no version of them is written. Likely cause: learning "
                "rates that are too high; lower them, or set train.clip_norm",
                step=step,
            )


def served_arrays(learner: Learner) -> dict[str, npt.NDArray[np.generic]]:
    """The dense tensors that scoring needs, as files have them."""
    return {name: value.detach().contiguous().numpy() for name, value in dense_tensors(learner.model).items()}


def dense_arrays(learner: Learner) -> dict[str, npt.NDArray[np.generic]]:
    """The learner's dense tensors, as files have them."""
    return {name: value.detach().contiguous().numpy() for name, value in learner.dense().items()}
