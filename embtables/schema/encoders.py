"""How ids become keys, as configured: the section `encoder` of a feature. embtables/ids has what each of them does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from embtables.schema.base import Model
from embtables.schema.kinds import Kinds

Combine = Literal["sum", "mean", "concat", "product"]  # of the T rows of an id


class EncoderConfig(Model):
    """The base of every encoder's configuration; `kind` names the encoder. See `register_encoder`.

    Example:
        >>> from typing import Literal
        >>> from embtables import EncoderConfig
        >>> class LastDigits(EncoderConfig):
        ...     kind: Literal["last_digits"] = "last_digits"
        ...     count: int = 2
        >>> LastDigits().model_dump()
        {'kind': 'last_digits', 'count': 2}
    """

    kind: str


ENCODERS: Kinds[EncoderConfig] = Kinds("encoder")


@ENCODERS.add
class Identity(EncoderConfig):
    """key = id: for ids that are dense already. An id outside 0..num_rows-1 is refused, or wraps by modulo."""

    kind: Literal["identity"] = "identity"
    out_of_range: Literal["error", "modulo"] = Field(
        "error", description="what happens to an id outside 0..num_rows-1 of a fixed table"
    )


@ENCODERS.add
class Hash(EncoderConfig):
    """key = uint64(mix(seed, id)) % num_rows, with a fixed 64-bit bijective mix."""

    kind: Literal["hash"] = "hash"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="seed of the hash; another seed gives other collisions"
    )


@ENCODERS.add
class MultiHash(EncoderConfig):
    """`num_hashes` rows of one table per id, combined (Tito Svenstrup et al. 2017, without importance weights)."""

    kind: Literal["multi_hash"] = "multi_hash"
    num_hashes: Annotated[int, Field(ge=2, le=16)] = Field(2, description="rows per id")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="seed of the hashes; another seed gives other collisions"
    )
    # Written only where it is chosen: what a schema without it writes, and its hash, stay as they were before it.
    combine: Combine = Field(
        "sum",
        description="how the rows of an id become one vector; `concat` makes it `num_hashes` times as wide",
        exclude_if=lambda combine: combine == "sum",
    )
