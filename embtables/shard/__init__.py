"""Tables whose rows lie with several ranks: who owns which key, how rows and gradients travel (docs/sharding.md)."""
