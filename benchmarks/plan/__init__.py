"""Does `embtables plan` foretell what runs then do? See `python -m benchmarks.plan`."""
