"""Dropout: the share, the scale, the gradient, and that torch's random state alone decides it."""

from __future__ import annotations

import pytest
import torch

from embtables.models.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_a_share_is_zero_and_the_rest_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1000, 300))
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=0.003)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert len(out.unique()) == 2
    rows, columns = (out == 0).float().mean(1), (out == 0).float().mean(0)
    assert rows.std() < 2 * (p * (1 - p) / 300) ** 0.5
    assert columns.std() < 2 * (p * (1 - p) / 1000) ** 0.5


def test_the_gradient_passes_where_the_value_did() -> None:
    x = torch.randn(50, 7, requires_grad=True)
    out = Dropout(0.3)(x)
    out.backward(torch.ones_like(out))
    assert x.grad is not None
    assert torch.equal(x.grad == 0, out == 0)
    assert torch.allclose(out, x * x.grad)


def test_torchs_random_state_decides_every_mask() -> None:
    x, layer = torch.ones(20, 20), Dropout(0.5)
    state = torch.get_rng_state()
    first, second = layer(x), layer(x)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer(x), second)
    assert not torch.equal(first, second)


def test_inference_and_p_zero_change_nothing() -> None:
    x = torch.randn(5, 5)
    state = torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    assert Dropout(0.5)(torch.ones(4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
