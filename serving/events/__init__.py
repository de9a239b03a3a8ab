"""Events that a server appends to a log: what clients send, and what it served."""
