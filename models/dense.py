"""Dense tensors of a model, as versions name them: `dense/` and the parameter's or buffer's name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from embtables.errors import StateError

_PREFIX = "dense/"


def dense_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by the names that versions give them; live views."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {_PREFIX + name: value for name, value in named.items()}


@torch.no_grad()
def load_dense(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts a version's dense tensors into a model. Raises StateError naming what does not fit."""
    dense = {name.removeprefix(_PREFIX): value for name, value in dense_tensors(model).items()}
    saved = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    for name in sorted(set(dense) ^ set(saved)):
        raise StateError(f"dense tensor '{name}' is {'missing' if name in dense else 'not part of this model'}")
    for name, value in saved.items():
        dense[name].copy_(need_like(f"dense tensor '{name}'", value, dense[name]))


def need_like(what: str, saved: Tensor, needed: Tensor) -> Tensor:
    """A saved tensor, with the shape and dtype of the one needed. A scalar may have been saved as a vector of one, as
    builds before the end of 2026-11 did.

    Raises:
        StateError: it has another shape or dtype; begins with `what`.
    """
    if needed.ndim == 0 and saved.shape == (1,):
        saved = saved.reshape(())
    for name, found, wanted in (
        ("shape", tuple(saved.shape), tuple(needed.shape)),
        ("dtype", saved.dtype, needed.dtype),
    ):
        if found != wanted:
            raise StateError(f"{what} has {name} {found}, the model needs {wanted}")
    return saved
