"""Tables whose rows are spread over several ranks: owners of keys, the travel of rows and gradients (docs/sharding.md)."""
