"""Where batches come from: parquet logs."""
