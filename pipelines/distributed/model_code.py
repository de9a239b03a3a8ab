"""A model from outside the package, sent to the ranks by the process that starts them, over Ray's own connection.

The ranks are new processes: they know neither a script or notebook nor the folders in which it finds its modules. What
is sent goes into no file, and nothing that a run or a configuration holds is ever read in this way.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from embtables.errors import ConfigError
from embtables.models.registry import code_of, register_model


@dataclass(frozen=True)
class SentModel:
    """The code of a kind of model.

    Attributes:
        kind: its name in configurations.
        code: what was registered, as Ray sends functions and classes: those of `__main__` whole, others by their names.
        path: where this process looks for modules.
    """

    kind: str
    code: bytes
    path: tuple[str, ...]


def model_to_send(kind: str) -> SentModel | None:
    """The code of a model; None for one of the package's own, which every rank has.

    Raises:
        ConfigError: Ray cannot send it.
    """
    code = code_of(kind)
    if code is None:
        return None
    from ray import cloudpickle

    try:
        sent = cloudpickle.dumps(code)
    except Exception as error:
        raise ConfigError(
            f"model '{kind}' cannot be sent to the ranks ({type(error).__name__}: {error}); define it in a module of "
            "its own, with nothing around it that belongs to this process"
        ) from error
    return SentModel(kind, sent, tuple(str(Path(folder or ".").absolute()) for folder in sys.path))


def know(model: SentModel | None) -> None:
    """Registers the code of a model in a rank.

    Raises:
        ConfigError: it needs a module that this rank cannot import.
    """
    if model is None:
        return
    from ray import cloudpickle

    # At the end: a user's own random.py must not be taken for what the rank itself imports.
    sys.path += [folder for folder in model.path if folder not in sys.path and Path(folder).is_dir()]
    try:
        code = cloudpickle.loads(model.code)
    except Exception as error:
        raise ConfigError(
            f"model '{model.kind}' cannot be made at a rank ({type(error).__name__}: {error}); install its modules on "
            "every node"
        ) from error
    register_model(code, name=model.kind)
