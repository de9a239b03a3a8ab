"""From a batch's ids to embeddings and back to gradients: requests, views, TorchRec's collections."""
