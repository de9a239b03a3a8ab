"""Tables as configured: rows of one dimension with one optimizer and one way to initialise a row."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from embtables.schema.base import Model, Name

MAX_TABLE_ROWS = 2**40


class Sgd(Model):
    """w -= lr * g, where g is the sum of the row's gradients in the batch (+ weight_decay * w)."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = Field(0.0, description="L2 term added to the gradient of touched rows")


class Adagrad(Model):
    """s += g*g; w -= lr * g / (sqrt(s) + eps), elementwise (Duchi et al. 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    learning_rate: PositiveFloat
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = Field(0.0, description="L2 term added to the gradient of touched rows")


class RowwiseAdagrad(Model):
    """s += mean(g*g); w -= lr * g / (sqrt(s) + eps), one state value a row."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    learning_rate: PositiveFloat
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = Field(0.0, description="L2 term added to the gradient of touched rows")


class Adam(Model):
    """Adam (Kingma and Ba 2015, algorithm 1) on touched rows only; bias correction by the table's step count."""

    kind: Literal["adam"] = "adam"
    learning_rate: PositiveFloat
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = Field(0.0, description="L2 term added to the gradient of touched rows")


Optimizer = Annotated[Sgd | Adagrad | RowwiseAdagrad | Adam, Field(discriminator="kind")]


class Zeros(Model):
    """Every fresh row is zero."""

    kind: Literal["zeros"] = "zeros"


class Constant(Model):
    """Every element of a fresh row is `value`."""

    kind: Literal["constant"] = "constant"
    value: float


class Normal(Model):
    """Elements of a fresh row are drawn from N(0, std^2) by Philox(seed, key)."""

    kind: Literal["normal"] = "normal"
    std: PositiveFloat = 0.01


class Uniform(Model):
    """Elements of a fresh row are drawn from [low, high) by Philox(seed, key)."""

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float

    @model_validator(mode="after")
    def _check(self) -> Uniform:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, received low={self.low}, high={self.high}")
        return self


Initializer = Annotated[Zeros | Constant | Normal | Uniform, Field(discriminator="kind")]


class Table(Model):
    """A fixed table: `num_rows` rows of `dim` values; a key is the row's index `uint64(h) % num_rows`."""

    kind: Literal["fixed"] = "fixed"
    name: Name
    dim: Annotated[int, Field(ge=1, le=4096)]
    num_rows: Annotated[PositiveInt, Field(le=MAX_TABLE_ROWS)]
    optimizer: Optimizer
    initializer: Initializer = Normal()
