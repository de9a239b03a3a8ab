"""Tables as configured: rows of one dimension with one optimizer and one way to initialise a row."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, Tag, model_validator

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


class FixedTable(Model):
    """`num_rows` rows of `dim` values; a key is the row's index `uint64(h) % num_rows`, so ids may share a row."""

    kind: Literal["fixed"] = "fixed"
    name: Name
    dim: Annotated[int, Field(ge=1, le=4096)]
    num_rows: Annotated[PositiveInt, Field(le=MAX_TABLE_ROWS)]
    optimizer: Optimizer
    initializer: Initializer = Normal()
    trainable: bool = Field(True, description="false: frozen; training reads its rows and changes nothing of the table")
    non_finite_gradients: Literal["skip", "raise"] = Field(
        "skip",
        description="a row whose gradient is NaN or infinite stays as it is, counted; raise: training ends",
    )

    @property
    def key_range(self) -> int | None:
        """Keys are 0..key_range-1; None: any 64-bit integer."""
        return self.num_rows


class MinCount(Model):
    """A key gets its row at its `count`-th occurrence, repetitions in a batch included."""

    kind: Literal["min_count"] = "min_count"
    count: Annotated[int, Field(ge=1, le=65_535)]
    max_waiting: Annotated[PositiveInt, Field(le=2**31)] = Field(
        1_000_000,
        description="keys that are counted and have no row yet; above it the least recently seen are forgotten",
    )
    counting: Literal["exact", "sketch"] = Field(
        "exact",
        description="sketch: max_waiting keys in 4 bytes each (8 for counts above 15, 16 above 255) instead of about "
        "21; about 4 % of keys get their row too early, none too late while it is remembered (docs/tables.md)",
    )


class Probability(Model):
    """A key gets its row with this probability, drawn from (seed, key, step) at every step that sees it."""

    kind: Literal["probability"] = "probability"
    probability: Annotated[float, Field(gt=0.0, le=1.0)]


Admission = Annotated[MinCount | Probability, Field(discriminator="kind")]


class CollisionlessTable(Model):
    """Every admitted key has a row of its own; the table grows with the keys, and forgets what it no longer sees."""

    kind: Literal["collisionless"] = "collisionless"
    name: Name
    dim: Annotated[int, Field(ge=1, le=4096)]
    optimizer: Optimizer
    initializer: Initializer = Normal()
    admission: Admission | None = Field(None, description="by default every key gets its row at first sight")
    ttl_seconds: Annotated[PositiveInt, Field(lt=2**32 - 1)] | None = Field(
        None, description="a row not seen for longer, in event time, is evicted; needs one pass in order of time"
    )
    max_rows: Annotated[PositiveInt, Field(le=2**29)] | None = Field(
        None, description="above it the least recently seen rows are evicted"
    )
    cold_row: Literal["zeros", "trained"] = Field("zeros", description="what a key without a row reads")
    max_clock_step_seconds: PositiveInt = Field(
        86_400, description="the clock moves at most this far with a batch; stray times beyond are counted"
    )
    trainable: bool = Field(True, description="false: frozen; training reads its rows and changes nothing of the table")
    non_finite_gradients: Literal["skip", "raise"] = Field(
        "skip",
        description="a row whose gradient is NaN or infinite stays as it is, counted; raise: training ends",
    )

    @property
    def key_range(self) -> int | None:
        """Keys are 0..key_range-1; None: any 64-bit integer."""
        return None


def _kind(value: Any) -> str:
    """`kind` may be left out: a table with num_rows is fixed."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", "")
    if kind is None:
        return "fixed" if "num_rows" in value else "collisionless"
    return str(kind)


Table = Annotated[
    Annotated[FixedTable, Tag("fixed")] | Annotated[CollisionlessTable, Tag("collisionless")],
    Discriminator(
        _kind, custom_error_type="unknown_kind", custom_error_message="'kind' must be 'fixed' or 'collisionless'"
    ),
]
