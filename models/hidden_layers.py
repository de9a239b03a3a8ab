"""The options of hidden layers, which every model with a deep net has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from embtables.models.spec import ModelOptions, Rate, Sizes

Normalisation = Literal["batch_norm", "layer_norm"]
Activation = Literal["relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Rates = Annotated[
    Annotated[Rate, Tag("one-number")] | Annotated[tuple[Rate, ...], Tag("list-of-numbers")],
    Discriminator(lambda value: "list-of-numbers" if isinstance(value, list | tuple) else "one-number"),
]


class HiddenLayers(ModelOptions):
    """A deep net: for each hidden size a linear layer, a normalisation, an activation and dropout, in this order."""

    hidden_sizes: Sizes = Field((256, 256, 256), description="widths of the hidden layers")
    dropout: Rates = Field(
        0.0, description="share of hidden values that training sets to zero: one for all hidden layers, or a list"
    )
    # Written only where they are chosen: a configuration without them, and what versions record, stay as they were.
    normalisation: Normalisation | None = Field(
        None,
        description="batch_norm: over the rows of the whole batch, of all ranks; layer_norm: over the values of a row",
        exclude_if=lambda normalisation: normalisation is None,
    )
    activation: Activation = Field(
        "relu", description="after each hidden layer", exclude_if=lambda activation: activation == "relu"
    )

    @model_validator(mode="after")
    def _a_rate_for_each_layer(self) -> HiddenLayers:
        if isinstance(self.dropout, tuple) and len(self.dropout) != len(self.hidden_sizes):
            raise ValueError(
                f"dropout has {len(self.dropout)} values for {len(self.hidden_sizes)} hidden layers; "
                "give one for each layer, or one number for all"
            )
        return self

    @property
    def rates(self) -> tuple[float, ...]:
        """The share to drop after each hidden layer."""
        return self.dropout if isinstance(self.dropout, tuple) else (self.dropout,) * len(self.hidden_sizes)
