"""Random logs, read by `embtables` and by an oracle that is slow and obviously right: `make fuzz`.

A case is drawn from a seed and a number (draw.py): columns of any Arrow type in every role, in files that differ,
by five writers (writers.py). The oracle reads the same files value by value (oracle.py). Either both have the same
rows, or `embtables` says in one message why not; a traceback, a hang or too much memory is a fault (check.py).
"""
