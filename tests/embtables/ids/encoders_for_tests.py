"""An encoder that lives outside the package: the digits of an id, each with rows of its own in one table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from embtables import Encoder, EncoderConfig, EncoderSpec, register_encoder
from embtables.errors import DataError
from embtables.ids import Artifacts, Combine, unregister_encoder
from embtables.ids.mix import Ids


class Digits(EncoderConfig):
    kind: Literal["digits"] = "digits"
    base: Annotated[int, Field(ge=2)] = 10
    num_digits: Annotated[int, Field(ge=1)] = 2
    combine: Combine = "concat"
    order: str | None = None  # a file


class DigitsEncoder(Encoder[Digits]):
    """Ids 0..base^T - 1; digit t of an id has key t * base + digit. `order`, an artifact, renames the digits."""

    collisions = "none"
    uses_key_range = False

    def __init__(
        self, config: Digits, key_range: int | None, feature: str = "", artifacts: Artifacts | None = None
    ) -> None:
        super().__init__(config, key_range, feature, artifacts)
        self.num_keys, self.combine = config.num_digits, config.combine
        self._powers = config.base ** np.arange(config.num_digits)

    def read_artifacts(self) -> Artifacts:
        return Artifacts({} if self.config.order is None else {"order": Path(self.config.order).read_bytes()})

    def keys(self, ids: Ids) -> Ids:
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.config.base**self.num_keys:
            raise DataError(f"has more than {self.num_keys} digits", feature=self.feature)
        digits = ids[:, None] // self._powers % self.config.base
        if "order" in self.artifacts:
            digits = np.frombuffer(self.artifacts["order"], np.int64)[digits]
        return digits + np.arange(self.num_keys) * self.config.base  # (n, T)


@contextmanager
def registered() -> Iterator[None]:
    """The encoder is known within."""
    register_encoder(EncoderSpec(Digits, DigitsEncoder))
    try:
        yield
    finally:
        unregister_encoder("digits")
