"""`ModelSpec`: what the program knows of a kind of model. `registry/` has the list of them.

Nothing here imports torch: a configuration is read and checked before that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Generic, Literal, TypeVar

from pydantic import Field, PositiveInt

from embtables.errors import ConfigError
from embtables.schema.base import Model
from embtables.schema.kinds import Kinds

if TYPE_CHECKING:
    from torch import nn

    from embtables.models.protocols import PooledCollection, PooledFirstOrderCollection, SequenceCollection
    from embtables.shard.world import World

Sizes = tuple[PositiveInt, ...]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
ViewName = Literal["pooled", "sequence", "first_order"]


class ModelOptions(Model):
    """The `model` section: a frozen record for each model, chosen by `kind`."""

    kind: str


ENTRY_POINTS = "embtables.models"
MODELS: Kinds[ModelOptions] = Kinds(
    "model",
    unknown_hint="the code of a model of your own is not part of a configuration or a run: import the file that "
    "registers it, give the code with model=... (embtables.load(path, model=...) makes a run that evaluates and "
    f"predicts), or install the package with an entry point of that name in '{ENTRY_POINTS}'",
)
ModelConfig = Annotated[ModelOptions, MODELS]
C = TypeVar("C", bound=ModelOptions)


def _single_rank() -> World:
    from embtables.shard.world import SingleRank

    return SingleRank()


@dataclass(frozen=True)
class ModelInputs:
    """What a model is built over. A view that the model does not take, or that no feature goes to, is None.

    Attributes:
        pooled: embeddings of the features with `pooling: sum` or `mean`.
        sequence: embeddings of the features with `pooling: none`.
        first_order: a weight for each id of every feature, as embeddings of dimension 1.
        pooled_first_order: for a model that takes `pooled` and `first_order`, in place of both: one lookup for the two.
        num_dense: dense columns.
        num_labels: columns of the result.
        world: the ranks that train together: a layer that looks at a whole batch sums over them.
    """

    pooled: PooledCollection | None
    sequence: SequenceCollection | None
    first_order: PooledCollection | None
    num_dense: int
    num_labels: int
    pooled_first_order: PooledFirstOrderCollection | None = None
    world: World = field(default_factory=_single_rank)

    def need_pooled_first_order(self) -> PooledFirstOrderCollection:
        """Pooled embeddings and first-order weights. Raises ConfigError if no feature is pooled."""
        if self.pooled_first_order is None:
            raise ConfigError("the model needs pooled features; set pooling: sum or mean for at least one")
        return self.pooled_first_order

    def need_pooled(self) -> PooledCollection:
        """The pooled view. Raises ConfigError if there is none."""
        if self.pooled is None:
            raise ConfigError("the model needs pooled features; set pooling: sum or mean for at least one")
        return self.pooled

    def need_sequence(self) -> SequenceCollection:
        """The view of sequences. Raises ConfigError if there is none."""
        if self.sequence is None:
            raise ConfigError("the model needs sequences; set pooling: none for at least one feature")
        return self.sequence

    def need_first_order(self) -> PooledCollection:
        """First-order weights. Raises ConfigError if the ModelSpec does not take them, or takes pooled features too."""
        if self.first_order is None:
            reason = "its ModelSpec must take 'first_order'; with 'pooled' too, call need_pooled_first_order"
            raise ConfigError(f"the model needs first-order weights; {reason}")
        return self.first_order


@dataclass(frozen=True)
class ModelSpec(Generic[C]):
    """A kind of model.

        class TowerConfig(ModelOptions):
            kind: Literal["tower"] = "tower"
            width: PositiveInt = 64

        register_model(ModelSpec(TowerConfig, frozenset({"pooled"}), lambda c, i: Tower(c, i.need_pooled())))

    Attributes:
        config: its section; `kind` has the name as its default.
        takes: the views that it looks up. Which of `pooled` and `sequence` a feature goes to follows from its pooling.
        build: configuration and inputs -> module; `module(ids: JaggedIds, dense: (B, num_dense))` gives the task's
            outputs, for the pointwise task logits (B, num_labels). Seeded by torch's generator.
    """

    config: type[C]
    takes: frozenset[ViewName]
    build: Callable[[C, ModelInputs], nn.Module]

    @property
    def kind(self) -> str:
        """The model's name in configurations."""
        return str(self.config.model_fields["kind"].default)
