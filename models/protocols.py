"""What a model needs of the views it receives."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from embtables.errors import ConfigError
from embtables.inputs.batch import Jagged, JaggedIds


class PooledCollection(Protocol):
    """A view of pooled embeddings: ids (B rows) -> pooled embeddings (B, sum of embedding_dims)."""

    @property
    def embedding_names(self) -> list[str]:
        """Output keys, in the order of the columns of the result."""

    @property
    def embedding_dims(self) -> list[int]:
        """D of each output key."""

    def __call__(self, ids: JaggedIds) -> Tensor:
        """Pooled embeddings of a batch."""


class PooledFirstOrderCollection(Protocol):
    """A view of pooled embeddings with first-order weights: ids (B rows) -> (B, sum of embedding_dims), (B, n)."""

    @property
    def embedding_names(self) -> list[str]:
        """Names of the embeddings, in the order of their columns."""

    @property
    def embedding_dims(self) -> list[int]:
        """D of each of them."""

    def __call__(self, ids: JaggedIds) -> tuple[Tensor, Tensor]:
        """Embeddings of a batch, and weights whose sum over a row is its first-order term."""


class SequenceCollection(Protocol):
    """A view of sequences: ids (B rows) -> by feature the row (D,) of each id."""

    @property
    def embedding_names(self) -> list[str]:
        """Output keys."""

    @property
    def embedding_dims(self) -> list[int]:
        """D of each output key."""

    def __call__(self, ids: JaggedIds) -> dict[str, Jagged]:
        """Rows of a batch's ids, with the lengths of its lists."""


def equal_dim(collection: PooledCollection | PooledFirstOrderCollection, model: str) -> int:
    """The one dimension of all outputs. Raises ConfigError naming two features if there are several."""
    first = collection.embedding_dims[0]
    for name, dim in zip(collection.embedding_names, collection.embedding_dims, strict=True):
        if dim != first:
            raise ConfigError(
                f"{model} needs one dimension for all embeddings, received {first} for feature "
                f"'{collection.embedding_names[0]}' and {dim} for '{name}'; give their tables the same dim; "
                "concatenated rows of an id are wider than one row, so combine them in another way"
            )
    return first
