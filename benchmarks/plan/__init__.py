"""Do runs do what `embtables plan` predicts? See `python -m benchmarks.plan`."""
