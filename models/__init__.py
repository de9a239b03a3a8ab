"""CTR models, one a file; each receives its collections. `models.registry` is the one table of them."""
