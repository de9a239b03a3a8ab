"""How long state takes: `python -m benchmarks.state`."""
