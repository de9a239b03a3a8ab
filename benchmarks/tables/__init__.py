"""`python -m benchmarks.tables`: key maps, pooled lookups and whole steps against what is in use."""
