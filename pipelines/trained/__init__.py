"""A trained run: its figures, rows and scores."""
