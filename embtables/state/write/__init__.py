"""Versions written: by one process or by all ranks together, in the background."""
