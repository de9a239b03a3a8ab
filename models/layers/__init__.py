"""Layers that several models share."""

from models.layers.cross import CrossNet
from models.layers.fm import fm_interaction
from models.layers.mlp import Mlp

__all__ = ["CrossNet", "Mlp", "fm_interaction"]
