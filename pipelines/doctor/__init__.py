"""`embtables doctor`: what of a machine or installation makes training slow or fail, and what to do about each.

processor.py   the instruction set, huge pages
runtimes.py    doubled OpenMP runtimes, the order of imports
versions.py    installed packages beside those that the package asks for, and the lock
limits.py      limits on files, free memory beside what a run needs
examine.py     all of them, one after the other
"""
