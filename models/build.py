"""From a schema and a model's configuration to tables, views and a module."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from embtables.errors import ConfigError
from embtables.lookup.views import PooledFirstOrderView, PooledView, SequenceView
from embtables.models.registry import ModelInputs, ModelOptions, spec_of
from embtables.schema import Feature, Schema, Table
from embtables.schema.schema import LINEAR_PREFIX
from embtables.tables.lookup_tables import LookupTables


def tables_of(schema: Schema, model: ModelOptions) -> tuple[Table, ...]:
    """The tables that the model looks up: embeddings, first-order weights, or both."""
    takes = spec_of(model).takes
    deep = schema.tables if takes & {"pooled", "sequence"} else ()
    return (*deep, *(schema.linear_tables() if "first_order" in takes else ()))


def features_of(schema: Schema, model: ModelOptions) -> tuple[Feature, ...]:
    """The features that read `tables_of`; of a list of ids that is a sequence the first-order weights are summed."""
    takes = spec_of(model).takes
    deep = schema.features if takes & {"pooled", "sequence"} else ()
    if "first_order" not in takes:
        return deep
    linear = (f.model_copy(update={"pooling": "sum"}) if f.pooling == "none" else f for f in schema.linear_features())
    return (*deep, *linear)


def refuse_features_without_view(schema: Schema, model: ModelOptions) -> None:
    """Raises ConfigError if the model takes no view that a feature's pooling asks for."""
    takes = spec_of(model).takes
    for feature in schema.features:
        if feature.pooling == "none" and "sequence" not in takes:
            raise ConfigError(
                f"model '{model.kind}' takes pooled features; set pooling: sum or mean", feature=feature.name
            )
        if feature.pooling != "none" and takes == {"sequence"}:
            raise ConfigError(f"model '{model.kind}' takes sequences; set pooling: none", feature=feature.name)


def build_model(schema: Schema, model: ModelOptions, tables: LookupTables) -> nn.Module:
    """The configured model over the views that it takes of `tables`, which hold `tables_of`; seeded by torch's
    generator.

    Raises:
        ConfigError: the model does not take a feature as it is pooled, refuses dimensions, or makes no such module.
    """
    refuse_features_without_view(schema, model)
    spec = spec_of(model)
    names = tuple(table.name for table in schema.tables)
    pooled = {f.pooling != "none" for f in schema.features}
    takes_pooled, takes_first_order = "pooled" in spec.takes and True in pooled, "first_order" in spec.takes
    takes_both = takes_pooled and takes_first_order
    linear = [LINEAR_PREFIX + name for name in names]
    inputs = ModelInputs(
        pooled=PooledView(tables, names) if takes_pooled and not takes_both else None,
        sequence=SequenceView(tables, names) if "sequence" in spec.takes and False in pooled else None,
        first_order=PooledView(tables, linear) if takes_first_order and not takes_both else None,
        num_dense=len(schema.dense),
        num_labels=len(schema.labels),
        pooled_first_order=PooledFirstOrderView(tables, names) if takes_both else None,
        world=tables.world,
    )
    module = spec.build(model, inputs)
    _refuse_unusable(module, inputs, model.kind)
    return module


def _refuse_unusable(module: nn.Module, inputs: ModelInputs, kind: str) -> None:
    """Raises ConfigError if what a model's code made cannot be trained."""
    if not isinstance(module, nn.Module):
        raise ConfigError(f"model '{kind}' must make a torch module, received {type(module).__name__}")
    held = list(module.modules())
    for name in ("pooled", "sequence", "first_order", "pooled_first_order"):
        view = getattr(inputs, name)
        # Outside it a view would not learn when training ends: evaluation would count keys and make rows.
        if view is not None and not any(part is view for part in held):
            raise ConfigError(f"model '{kind}' must hold the view '{name}': set it as an attribute of the module")
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise ConfigError(f"model '{kind}': '{name}' has no shape yet; use a layer that is not lazy")
