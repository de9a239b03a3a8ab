"""Pickles are refused by their names, before anything is read."""

from __future__ import annotations

from embtables.errors import ConfigError


def refuse_pickle(path: str) -> None:
    """Raises ConfigError if the file's name is that of a pickle, which is never read."""
    if path.endswith((".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")):
        raise ConfigError(
            "is a pickle by its name, and pickles are not read; if you trust it, convert it once with: "
            "safetensors.torch.save_file(state_dict, 'model.safetensors')",
            file=path,
        )
