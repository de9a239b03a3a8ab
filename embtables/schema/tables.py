"""Tables as configured: rows of one dimension with one optimizer and one way to initialise a row."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, Tag, model_validator

from embtables.schema.base import Model, Name
from embtables.schema.kinds import Kinds

MAX_TABLE_ROWS = 2**40


class DenseDecay(Model):
    """Every row of the table decays in every step, also those that the batch has not: w *= 1 - learning_rate * rate.

    For SGD this is an L2 term in the gradient of every row; beside the others it is decoupled from the gradient
    (Loshchilov and Hutter 2019). A row that no batch has for n steps is decayed n times when it is next read or
    updated: no step passes over the table, and a delta holds only the rows that were touched. The values are those of
    decay in every step, up to the rounding of float32; of SGD, those of the L2 term.

    Example:
        >>> import embtables
        >>> decay = embtables.DenseDecay(rate=0.001)
        >>> embtables.Sgd(learning_rate=0.1, weight_decay=decay).dense_decay
        0.001
    """

    kind: Literal["dense"] = Field("dense", description="every row of the table decays in every step")
    rate: NonNegativeFloat = Field(description="a step multiplies every row by 1 - learning rate * rate")


WeightDecay = Annotated[
    Annotated[NonNegativeFloat, Tag("one-number")] | Annotated[DenseDecay, Tag("dense-decay")],
    Discriminator(lambda value: "dense-decay" if isinstance(value, dict | DenseDecay) else "one-number"),
]


class OptimizerConfig(Model):
    """What every optimizer of rows has; what it does is an `OptimizerSpec` (embtables/rows/optimizers.py)."""

    kind: str
    learning_rate: PositiveFloat = Field(description="step size; a schedule may scale it during a run")
    weight_decay: WeightDecay = Field(
        0.0,
        description="a number: L2 term added to the gradient of touched rows; `{kind: dense, rate: ...}`: every row "
        "decays in every step",
    )

    @property
    def touch_decay(self) -> float:
        """The L2 term that is added to the gradients of touched rows."""
        return 0.0 if isinstance(self.weight_decay, DenseDecay) else self.weight_decay

    @property
    def dense_decay(self) -> float:
        """What every row loses in every step, by learning rate."""
        return self.weight_decay.rate if isinstance(self.weight_decay, DenseDecay) else 0.0

    @model_validator(mode="after")
    def _leaves_something(self) -> OptimizerConfig:
        if self.learning_rate * self.dense_decay >= 1.0:
            raise ValueError(
                f"learning_rate * weight_decay.rate must be below 1, received {self.learning_rate} * "
                f"{self.dense_decay}: a step would take all of a row away"
            )
        return self


OPTIMIZERS: Kinds[OptimizerConfig] = Kinds("optimizer")


@OPTIMIZERS.add
class Sgd(OptimizerConfig):
    """w -= lr * g, where g is the sum of the row's gradients in the batch (+ weight_decay * w)."""

    kind: Literal["sgd"] = "sgd"


@OPTIMIZERS.add
class Adagrad(OptimizerConfig):
    """s += g*g; w -= lr * g / (sqrt(s) + eps), elementwise (Duchi et al. 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment, against division by zero")


@OPTIMIZERS.add
class RowwiseAdagrad(OptimizerConfig):
    """s += mean(g*g); w -= lr * g / (sqrt(s) + eps), one state value per row."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment, against division by zero")


@OPTIMIZERS.add
class Adam(OptimizerConfig):
    """Adam (Kingma and Ba 2015, algorithm 1) on touched rows only; bias correction by the table's step count."""

    kind: Literal["adam"] = "adam"
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="decay of the mean of gradients")
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.999, description="decay of the mean of squared gradients")
    eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment, against division by zero")


Optimizer = Annotated[OptimizerConfig, OPTIMIZERS]


class Zeros(Model):
    """Every fresh row is zero."""

    kind: Literal["zeros"] = "zeros"


class Constant(Model):
    """Every element of a fresh row is `value`."""

    kind: Literal["constant"] = "constant"
    value: float = Field(description="value of every element of a fresh row")


class Normal(Model):
    """Elements of a fresh row are drawn from N(0, std^2) by Philox(seed, key)."""

    kind: Literal["normal"] = "normal"
    std: PositiveFloat = Field(0.01, description="standard deviation of the elements of a fresh row")


class Uniform(Model):
    """Elements of a fresh row are drawn from [low, high) by Philox(seed, key)."""

    kind: Literal["uniform"] = "uniform"
    low: float = Field(description="least value of an element of a fresh row")
    high: float = Field(description="upper bound of an element of a fresh row, itself excluded")

    @model_validator(mode="after")
    def _check(self) -> Uniform:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, received low={self.low}, high={self.high}")
        return self


Initializer = Annotated[Zeros | Constant | Normal | Uniform, Field(discriminator="kind")]


# What both kinds of tables have.
Trainable = Annotated[
    bool, Field(description="false: frozen; training reads its rows and changes nothing of the table")
]
NonFiniteGradients = Annotated[
    Literal["skip", "raise"],
    Field(
        description="skip: a row whose gradient is NaN or infinite stays as it is and is counted; raise: training ends"
    ),
]
ShareIds = Annotated[
    bool | None,
    Field(
        description="whether equal ids of the table's features read one row: by default they do; false: each feature "
        "has keys of its own",
        # Written only where it is chosen, as `combine` of MultiHash is.
        exclude_if=lambda share_ids: share_ids is None,
    ),
]


class FixedTable(Model):
    """`num_rows` rows of `dim` values; a key is the row's index `uint64(h) % num_rows`, so ids may share a row.

    Example:
        >>> import embtables
        >>> optimizer = embtables.RowwiseAdagrad(learning_rate=0.05)
        >>> embtables.FixedTable(name="item", dim=16, num_rows=1_000_000, optimizer=optimizer).initializer
        Normal(kind='normal', std=0.01)
    """

    kind: Literal["fixed"] = "fixed"
    name: Name
    dim: Annotated[int, Field(ge=1, le=4096)] = Field(description="values per row")
    num_rows: Annotated[PositiveInt, Field(le=MAX_TABLE_ROWS)] = Field(
        description="rows of the table; if there are more ids, ids share rows"
    )
    optimizer: Optimizer
    initializer: Initializer = Normal()
    trainable: Trainable = True
    non_finite_gradients: NonFiniteGradients = "skip"
    share_ids: ShareIds = None

    @property
    def shares_ids(self) -> bool:
        """Whether equal ids of its features have one key."""
        return self.share_ids is not False

    @property
    def key_range(self) -> int | None:
        """Keys are 0..key_range-1; None: any 64-bit integer."""
        return self.num_rows


class MinCount(Model):
    """A key gets its row at its `count`-th occurrence, repetitions in a batch included."""

    kind: Literal["min_count"] = "min_count"
    count: Annotated[int, Field(ge=1, le=65_535)] = Field(description="occurrences after which a key gets its row")
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
    probability: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        description="probability that a key gets its row, at each step that sees it"
    )


Admission = Annotated[MinCount | Probability, Field(discriminator="kind")]


class CollisionlessTable(Model):
    """Every admitted key has a row of its own; the table grows with the keys, and forgets what it no longer sees.

    Example:
        >>> import embtables
        >>> user = embtables.CollisionlessTable(
        ...     name="user",
        ...     dim=16,
        ...     optimizer=embtables.Adam(learning_rate=0.001),
        ...     admission=embtables.MinCount(count=3),  # a row from the third occurrence on
        ...     ttl_seconds=30 * 86_400,  # a row not seen for 30 days goes
        ... )
    """

    kind: Literal["collisionless"] = "collisionless"
    name: Name
    dim: Annotated[int, Field(ge=1, le=4096)] = Field(description="values per row")
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
    trainable: Trainable = True
    non_finite_gradients: NonFiniteGradients = "skip"
    share_ids: ShareIds = None

    @property
    def shares_ids(self) -> bool:
        """Whether equal ids of its features have one key."""
        return self.share_ids is not False

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
