"""What a training run does between batches, a hook per file; `train.py` composes those of a parquet log."""
