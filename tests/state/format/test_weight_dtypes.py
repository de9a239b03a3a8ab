"""Weights as files of versions for servers have them: rounded to the nearest, everywhere to the same bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embtables.errors import StateError
from embtables.rows.content import Streamed
from embtables.state.format.weight_dtype import (
    WEIGHT_DTYPES,
    WeightDtype,
    WeightEncoder,
    decoded,
    dim_of,
    stored_dtype,
    stored_width,
)

Weights = npt.NDArray[np.float32]
ROUNDED: tuple[WeightDtype, ...] = ("bf16", "fp16", "int8")
weights_of_any_size = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(1, 9)),
    elements=st.floats(-(2.0**126), 2.0**126, width=32),  # a row's range is a float too, as int8 needs it
)


def encoder(dtype: WeightDtype, scale: float = 1.0) -> WeightEncoder:
    return WeightEncoder(dtype, "t", lambda at: 100 + at, scale)


def encoded(weights: Weights, dtype: WeightDtype) -> npt.NDArray[np.generic]:
    column = encoder(dtype).streamed(weights)
    raw = b"".join(bytes(chunk) for chunk in column.bytes("weight"))
    return np.frombuffer(raw, stored_dtype(dtype)).reshape(column.shape)


def exact(weights: Weights) -> npt.NDArray[np.float64]:
    return weights.astype(np.float64)


@given(weights_of_any_size)
@settings(max_examples=200, deadline=None)
def test_an_int8_weight_is_within_half_a_level_of_the_true_one(weights: Weights) -> None:
    stored = encoded(weights, "int8")
    back = decoded(stored, "int8")
    assert back.shape == weights.shape
    assert back.dtype == np.float32
    ranges = exact(weights).max(axis=1) - exact(weights).min(axis=1)
    # Beyond half a level: scale and bias are themselves float32, and so is the weight that is computed.
    rounding = np.abs(exact(weights)).max(axis=1, initial=0.0) * 2.0**-22 + 255 * 2.0**-149
    bound = ranges / 255 / 2 + rounding
    assert (np.abs(exact(back) - exact(weights)) <= bound[:, None]).all()
    same = weights.min(axis=1) == weights.max(axis=1)
    assert (back[same] == weights[same]).all()


@given(weights_of_any_size)
@settings(max_examples=100, deadline=None)
def test_bf16_rounds_as_torch_does(weights: Weights) -> None:
    expected = torch.from_numpy(weights).to(torch.bfloat16)
    assert decoded(encoded(weights, "bf16"), "bf16").tobytes() == expected.float().numpy().tobytes()


@given(hnp.arrays(np.float32, (4, 5), elements=st.floats(-65504, 65504, width=32)))
@settings(max_examples=100, deadline=None)
def test_fp16_rounds_as_torch_does(weights: Weights) -> None:
    expected = torch.from_numpy(weights).to(torch.float16)
    stored = encoded(weights, "fp16")
    assert stored.tobytes() == expected.numpy().tobytes()
    assert decoded(stored, "fp16").tobytes() == expected.float().numpy().tobytes()


def test_a_tie_goes_to_the_even_neighbour() -> None:
    ties = np.array([[1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8]], np.float32)
    assert decoded(encoded(ties, "bf16"), "bf16").tolist() == [[1.0, 1 + 2.0**-6, -1.0]]
    levels = np.array([[0.0, 0.5, 1.5, 2.5, 255.0]], np.float32)
    assert encoded(levels, "int8")[0, :5].tolist() == [0, 0, 2, 2, 255]


def test_the_bytes_are_the_same_for_ever() -> None:
    weights = np.array([[-1.0, 0.25, 3.0], [0.1, 0.1, 0.1]], np.float32)
    assert encoded(weights, "int8").tobytes().hex() == "0050ff8180803c000080bf00000000000000cdcccc3d"
    assert encoded(weights, "bf16").tobytes().hex() == "80bf803e4040cd3dcd3dcd3d"
    assert encoded(weights, "fp16").tobytes().hex() == "00bc00340042662e662e662e"
    assert encoded(weights, "fp32").tobytes() == weights.tobytes()


def test_the_int8_bytes_are_a_fused_row_of_fbgemm() -> None:
    pytest.importorskip("fbgemm_gpu")
    weights = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    stored = encoded(weights, "int8")
    theirs = torch.ops.fbgemm.Fused8BitRowwiseQuantizedToFloat(torch.from_numpy(stored.astype(np.uint8)))
    assert theirs.numpy() == pytest.approx(decoded(stored, "int8"), abs=1e-6)


@pytest.mark.parametrize("dtype", ROUNDED)
def test_the_error_is_that_of_what_was_written_in_true_weights(dtype: WeightDtype) -> None:
    weights = np.random.default_rng(1).standard_normal((70_000, 3)).astype(np.float32)
    made = encoder(dtype, scale=0.5)
    pieces = Streamed(weights.shape, np.float32, lambda: iter((weights[:1], weights[1:65_536], weights[65_536:])))
    for column in (made.streamed(pieces), made.streamed(weights)):
        stored = np.concatenate([np.copy(piece) for piece in column.pieces()])
        assert stored.tobytes() == encoded(weights, dtype).tobytes()
        differences = 0.5 * (exact(decoded(stored, dtype)) - exact(weights))
        found = made.error.to_json()
        assert found["max_abs"] == np.abs(differences).max() > 0
        assert found["rms"] == pytest.approx(np.sqrt((differences**2).mean()))


@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_with_its_key(dtype: WeightDtype, value: float) -> None:
    weights = np.zeros((70_000, 2), np.float32)
    weights[66_000, 1] = value
    with pytest.raises(StateError, match="table t: key 66100 has a weight that is not finite"):
        list(encoder(dtype).streamed(weights).pieces())


def test_a_weight_beyond_the_type_is_refused() -> None:
    greatest = float(np.finfo(np.float32).max)
    for dtype, row in (("fp16", [65520.0, 0.0]), ("bf16", [greatest, 0.0]), ("int8", [2.0**127, -(2.0**127)])):
        with pytest.raises(StateError, match=f"key 101 has a weight that is too large for {dtype}"):
            list(encoder(dtype).streamed(np.array([[1.0, 1.0], row], np.float32)).pieces())  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_widths_are_those_of_the_dimension(dtype: WeightDtype) -> None:
    for dim in (1, 7, 4096):
        assert dim_of(dtype, stored_width(dtype, dim)) == dim
        assert encoded(np.zeros((2, dim), np.float32), dtype).shape == (2, stored_width(dtype, dim))
