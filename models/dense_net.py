"""`DenseNet`: a model without its lookups: what its views give goes in, its outputs come out.

    whole model   ids, dense --views over tables--> pooled, first-order weights --layers--> outputs
    DenseNet                                        pooled, first-order weights, dense --the same layers--> outputs

Parameters and buffers are the model's own. A server looks embeddings up once for all candidates and computes the rest
in whatever engine is fastest; an export has the layers alone. Shape letters: B rows, W width of a view's embeddings.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from embtables.errors import ConfigError
from embtables.lookup.views import PooledFirstOrderView, PooledView, Span, View

DENSE = "dense"
PooledViews = PooledView | PooledFirstOrderView


class _Given(nn.Module):
    """Stands where a view was: of what is given for all views it gives the part of its own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def forward(self, given: Any) -> Any:
        """Tensors by view -> those of this one."""
        return given[self._number]


class DenseNet(nn.Module):
    """A model's layers over what its views give.

    Args:
        model: as `build_model` makes it, over views that pool.
        num_dense: dense columns.

    Attributes:
        views: those of the model, in the order of their inputs.
        input_names: of the arguments of `forward`: for each view `embedding`, and `first_order` where it gives both;
            then `dense`, if there are dense columns. A model with several views has them numbered: `embedding_1`.
        input_widths: columns of each of them.
        spans: of each input but `dense` its name, and of which features its columns are.

    Raises:
        ConfigError: a view gives sequences, or the model has none.

    Example:
        >>> import embtables, torch
        >>> run = embtables.train("my.yaml", runs_dir="runs", max_steps=20, shown=False)
        >>> scorer = embtables.Scorer.from_version(run.path, "last")
        >>> net = DenseNet(scorer.model, len(scorer.schema.dense))
        >>> inputs = [torch.zeros(2, width) for width in net.input_widths]
        >>> net(*inputs).shape  # (B, n_labels)
        torch.Size([2, 1])
    """

    def __init__(self, model: nn.Module, num_dense: int) -> None:
        super().__init__()
        found = [module for module in model.modules() if isinstance(module, View)]
        views: list[PooledViews] = [view for view in found if isinstance(view, PooledViews)]
        if not views or len(views) < len(found):
            raise ConfigError("the model looks up sequences, which are no columns of a dense net")
        self.num_dense = num_dense
        self.views = tuple(views)
        # The model's own parameters, buffers and ranks, and in place of each view what stands for it.
        kept: dict[int, Any] = {id(view): _Given(number) for number, view in enumerate(views)}
        kept |= {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        kept |= {id(world): world for world in (getattr(part, "_world", None) for part in model.modules())}
        self.layers = copy.deepcopy(model, kept)
        self.layers.eval()
        spans: list[tuple[str, list[Span]]] = []
        for number, view in enumerate(views):
            after = f"_{number + 1}" if len(views) > 1 else ""
            spans.append((f"embedding{after}", view.spans))
            if isinstance(view, PooledFirstOrderView):
                spans.append((f"first_order{after}", view.first_order_spans))
        self.spans = tuple(spans)
        widths = [sum(width for _, width in of_input) for _, of_input in spans]
        self.input_names = (*(name for name, _ in spans), *([DENSE] if num_dense else []))
        self.input_widths = (*widths, *([num_dense] if num_dense else []))
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Columns (B, width) of each of `input_names` -> outputs, of the pointwise task logits (B, n_labels)."""
        given: list[Any] = []
        place = 0
        for view in self.views:
            taken = 2 if isinstance(view, PooledFirstOrderView) else 1
            given.append(inputs[place] if taken == 1 else (inputs[place], inputs[place + 1]))
            place += taken
        dense = inputs[place] if self.num_dense else inputs[0].new_zeros((inputs[0].shape[0], 0))
        outputs: Tensor = self.layers(tuple(given), dense)
        return outputs

    @torch.no_grad()
    def try_out(self) -> None:
        """Raises ConfigError if the layers need more than what the views give."""
        try:
            found = self(*(torch.zeros(2, width) for width in self.input_widths))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"the model uses ids beside its views: {type(error).__name__} {reason}") from error
        if not isinstance(found, Tensor) or found.ndim != 2:
            raise ConfigError("the model's output is no tensor (rows, labels)")
