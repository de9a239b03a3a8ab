"""A model given as code to a Python call: registered for this process, and named in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embtables.errors import ConfigError
from embtables.models.registry import ModelCode, ModelOptions, ModelSpec, register_model
from embtables.models.registry.factory import factory_name
from embtables.pipelines.run_dir import CONFIG_FILE, RunDir
from embtables.schema import read_yaml


def model_section(model: str | Mapping[str, Any] | ModelOptions | ModelCode) -> dict[str, Any]:
    """The `model` section of a configuration for a model given as its kind, its section, its options, or its code.

    >>> from embtables.pipelines.call.own_model import model_section
    >>> def tower(pooled, num_labels, width: int = 64): ...
    >>> model_section("dcnv2"), model_section({"kind": "lr"}), model_section(tower)
    ({'kind': 'dcnv2'}, {'kind': 'lr'}, {'kind': 'tower'})

    Raises:
        ConfigError: the code cannot be registered; see `register_model`.
    """
    if isinstance(model, str):
        return {"kind": model}
    if isinstance(model, Mapping):
        return dict(model)
    if isinstance(model, ModelOptions):
        return model.model_dump(mode="json")
    return {"kind": _registered(model)}


def take_model(run: RunDir, model: ModelCode | None) -> None:
    """Registers the code of a run's model, which the run itself does not hold. None: it is registered already.

    Raises:
        ConfigError: the run's model has another name.
    """
    if model is None:
        return
    section = read_yaml(run.path / CONFIG_FILE).get("model")
    kind = section.get("kind") if isinstance(section, dict) else None
    given = model.kind if isinstance(model, ModelSpec) else factory_name(model)
    if kind != given:
        raise ConfigError(
            f"the run's model is '{kind}', received the code of '{given}'; if it is the same code under another name, "
            f"call register_model(..., name='{kind}') instead",
            folder=run.path,
        )
    register_model(model)


def _registered(model: ModelCode) -> str:
    register_model(model)
    return model.kind if isinstance(model, ModelSpec) else factory_name(model)
