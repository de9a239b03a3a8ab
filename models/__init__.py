"""Models, one per file; each receives its views. `embtables.models.registry` is the one list of them."""
