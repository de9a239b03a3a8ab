"""Layers that several models share."""

from embtables.models.layers.cross import CrossNet
from embtables.models.layers.fm import fm_interaction
from embtables.models.layers.mlp import Mlp

__all__ = ["CrossNet", "Mlp", "fm_interaction"]
