# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A model of your own
#
# A function or class becomes a model of embtables by one line. Its parameters say what it needs: those that are named
# after a view (`pooled`, `sequence`, `first_order`, `pooled_first_order`) are looked up for it, `num_dense` and
# `num_labels` are numbers of the schema, and all others are options of the `model` section.
#
# Data: a month of real invoice lines of a UK gift wholesaler (UCI Online Retail, CC BY 4.0, `../data`).

# %%
import torch
from torch import nn

import embtables


# %%
@embtables.register_model
class ProductNet(nn.Module):
    """Inner products of all pairs of embeddings beside the embeddings themselves (PNN, Qu et al. 2016)."""

    def __init__(self, pooled, num_dense: int, num_labels: int, width: int = 64, dropout: float = 0.1):
        super().__init__()
        self.pooled = pooled
        self.count = len(pooled.embedding_dims)
        self.first, self.second = torch.triu_indices(self.count, self.count, offset=1)
        inputs = sum(pooled.embedding_dims) + len(self.first) + num_dense
        self.layers = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, num_labels)
        )

    def forward(self, ids, dense):
        """ids of B rows, dense (B, num_dense) -> logits (B, num_labels)."""
        flat = self.pooled(ids)  # (B, F * D)
        each = flat.unflatten(1, (self.count, -1))  # (B, F, D)
        products = (each @ each.transpose(1, 2))[:, self.first, self.second]  # (B, F * (F - 1) / 2)
        return self.layers(torch.cat([flat, products, dense], dim=1))


# %% [markdown]
# From here on it is a model like those of the package: options are checked, versions are written, `resume` goes on,
# `--workers` trains it on several ranks.

# %%
run = embtables.train(
    "../online_retail/dcnv2.yaml",
    overrides=[
        "model={kind: ProductNet, width: 32}",
        "data.files=log/2010-12-*.parquet",
        "data.split={kind: time, validation_from: 2010-12-16, test_from: 2010-12-20}",
    ],
    batch_size=1024,
    runs_dir="runs",
)
report = run.report()
print(f"{report['model']}: AUC {report['auc']:.3f} of {report['evaluated_rows']:,} rows")

# %% [markdown]
# The run holds the configuration and the weights, not the code. Another process that reads it registers the model
# first, or gives it again.

# %%
loaded = embtables.load(report["run_dir"], model=ProductNet)
print(f"step {loaded.step}, options {loaded.config.model}")
