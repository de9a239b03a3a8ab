"""Batch normalisation beside torch's own, over one rank and several, down to batches without rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from embtables.models.layers.batch_norm import BatchNorm
from embtables.shard.world import SingleRank
from tests.models.batch_norm_for_tests import step
from tests.shard.groups_for_tests import Group

WIDTH = 5
PART = "tests.models.batch_norm_for_tests:part"


def layer() -> BatchNorm:
    made = BatchNorm(WIDTH, SingleRank())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in (made.weight, made.bias, made.running_mean, made.running_var):
            values.copy_(torch.rand(WIDTH, generator=generator) + 0.5)
    return made


def rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch, of which a column has a large mean beside its deviation, and the gradient of what comes of it."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, WIDTH, generator=generator)
    return x + torch.tensor([0.0, 3.0, -1.0, 500.0, 0.0]), torch.randn(count, WIDTH, generator=generator)


def test_it_is_torchs_in_training_and_inference() -> None:
    ours, torchs = layer(), nn.BatchNorm1d(WIDTH)
    torchs.load_state_dict(ours.state_dict(), strict=False)
    x, gradient = rows(40)
    found = step(SingleRank(), ours, x, gradient)
    theirs = x.clone().requires_grad_()
    out = torchs(theirs)
    out.backward(gradient)
    assert theirs.grad is not None
    assert torchs.running_mean is not None
    assert torchs.running_var is not None
    expected = [out, theirs.grad, torchs.weight.grad, torchs.bias.grad, torchs.running_mean, torchs.running_var]
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have, want)
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(x))


@pytest.mark.parametrize("ends", [[0, 20, 40], [0, 40, 40], [0, 1, 40], [0, 0, 40]])
def test_the_statistics_are_those_of_all_ranks(ends: list[int], group: Callable[[int], Group]) -> None:
    x, gradient = rows(40)
    expected = step(SingleRank(), layer(), x, gradient)
    found = group(2).run(PART, layer().state_dict(), ends, x, gradient)
    for number, want in enumerate(expected[:2]):
        torch.testing.assert_close(torch.cat([of_rank[number] for of_rank in found]), want, atol=1e-4, rtol=1e-4)
    for of_rank in found:
        for have, want in zip(of_rank[2:], expected[2:], strict=True):
            torch.testing.assert_close(have, want, atol=1e-4, rtol=1e-4)
    for first, second in zip(found[0][4:], found[1][4:], strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("size", [1, 2])
def test_rows_without_a_variance_are_normalised_as_in_inference(
    count: int, size: int, group: Callable[[int], Group]
) -> None:
    x, gradient = rows(count)
    want = layer().eval()(x)
    if size == 1:
        found = [step(SingleRank(), layer(), x, gradient)]
    else:
        found = group(size).run(PART, layer().state_dict(), [0, 0, count], x, gradient)
    torch.testing.assert_close(torch.cat([of_rank[0] for of_rank in found]), want)
    for of_rank in found:
        assert all(torch.isfinite(values).all() for values in of_rank)
        assert torch.equal(of_rank[4], layer().running_mean)
        assert torch.equal(of_rank[5], layer().running_var)
