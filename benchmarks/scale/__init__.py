"""How a run scales to 1,024 ranks, computed by the functions behind `embtables plan`: `python -m benchmarks.scale`."""
