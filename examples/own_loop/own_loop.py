# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A loop of your own
#
# Tables and views without the training loop of embtables: any torch code around them, any torch optimizer for the
# dense part. Rows of tables learn by the optimizer that their table names.
#
# Task: is this invoice line for a dozen pieces or more? Data: real invoice lines of a UK gift wholesaler (UCI Online
# Retail, CC BY 4.0, `../data`).

# %%
from datetime import datetime

import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchrec import KeyedJaggedTensor

import embtables

log = ds.dataset("../data/online_retail/log").to_table(filter=pc.field("customer_id").is_valid()).sort_by("event_time")
ids = torch.stack(
    [
        torch.from_numpy(embtables.hash_strings(log["stock_code"].combine_chunks())),
        torch.tensor(log["customer_id"].to_pylist()),
    ]
)  # (2, rows): strings become ids by a hash of 64 bits, integers are ids as they are
dozen = torch.tensor(pc.greater_equal(log["quantity"], 12).to_pylist(), dtype=torch.float32)
test_from = pc.sum(pc.less(log["event_time"], datetime(2011, 11, 1))).as_py()  # rows before November train

# %%
rows = {"dim": 16, "optimizer": embtables.RowwiseAdagrad(learning_rate=0.05)}
tables = embtables.Tables(
    [embtables.CollisionlessTable(name="item", **rows), embtables.CollisionlessTable(name="customer", **rows)],
    [embtables.Feature(name="item", table="item"), embtables.Feature(name="customer", table="customer")],
    seed=0,
)
embeddings = embtables.EmbeddingBagCollection.over(tables)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)


def logits(of: torch.Tensor) -> torch.Tensor:
    """(2, B) ids -> (B,)."""
    batch = KeyedJaggedTensor(["item", "customer"], of.reshape(-1), lengths=torch.ones(of.numel(), dtype=torch.int64))
    return net(embeddings(batch).values()).squeeze(1)


# %%
for chosen in torch.randperm(test_from).split(1024):
    loss = binary_cross_entropy_with_logits(logits(ids[:, chosen]), dozen[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()  # the dense part
    tables.step()  # the rows that the batch has touched

# %% [markdown]
# In `eval()` nothing is counted and no row is made: an id that training has not seen reads zeros.

# %%
embeddings.eval()
with torch.no_grad():
    scores, labels = logits(ids[:, test_from:]), dozen[test_from:]
positives, negatives = scores[labels == 1], scores[labels == 0].sort().values
auc = float(torch.searchsorted(negatives, positives).double().mean() / len(negatives))
print(f"AUC {auc:.3f} of {len(scores):,} rows; {tables.stats()['item'].rows:,} items have a row")
