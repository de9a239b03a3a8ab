"""Warm start: rows of tables from a parquet file of ids and vectors, or from a TorchRec `state_dict`."""

from embtables.warm_start.parquet import from_parquet
from embtables.warm_start.report import Warmed
from embtables.warm_start.state_dict import StateDictReport, from_safetensors, from_state_dict

__all__ = ["StateDictReport", "Warmed", "from_parquet", "from_safetensors", "from_state_dict"]
