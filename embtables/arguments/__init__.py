"""What callers give, as the engine needs it: ids, times, rows and tables, converted exactly or refused by name.

Every public call takes what its users have (torch tensors of any integer type, numpy, Arrow, pandas, polars, lists) and
hands it to these functions; an int64 tensor goes through as it is. What cannot be converted without a change of meaning
raises a DataError that names the argument, what was received and what to do.
"""

from embtables.arguments.columns import as_strings, as_table
from embtables.arguments.floats import as_floats, as_number
from embtables.arguments.integers import as_ids, as_microseconds

__all__ = [
    "as_floats",
    "as_ids",
    "as_microseconds",
    "as_number",
    "as_strings",
    "as_table",
]
