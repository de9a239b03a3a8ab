"""Tables whose rows are spread over several ranks: who owns keys, how rows and gradients travel (docs/sharding.md)."""
