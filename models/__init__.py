"""CTR models, one a file; each receives its collections. `embtables.models.registry` is the one table of them."""
