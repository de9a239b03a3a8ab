"""The row store on fbgemm's table-batched embeddings."""
