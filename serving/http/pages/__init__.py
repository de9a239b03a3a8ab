"""What people look at, and what programs read of a server: the live page, its documents, metrics, health."""
