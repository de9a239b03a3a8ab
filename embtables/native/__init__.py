"""The native core: C++20 without Python behind a thin binding. `EMBTABLES_ISA` forces one instruction set."""

from __future__ import annotations

import functools
import os

from embtables.errors import ConfigError
from embtables.native import _core

ISA_VARIABLE = "EMBTABLES_ISA"


@functools.cache
def isa() -> str:
    """The instruction set in use: the widest this processor has, or what EMBTABLES_ISA names.

    Raises:
        ConfigError: EMBTABLES_ISA names one that is unknown or that this processor lacks.
    """
    available = _core.available_isas()
    forced = os.environ.get(ISA_VARIABLE)
    if forced is None:
        return available[-1]
    if forced not in available:
        raise ConfigError(f"received {forced!r}; this machine has: {', '.join(available)}", variable=ISA_VARIABLE)
    return forced
