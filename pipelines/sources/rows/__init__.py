"""Which rows of a block count, what is joined to them, and which part they are of."""
