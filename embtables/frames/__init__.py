"""Rows in memory as users have them, and what their columns suggest: an Arrow table, figures, a schema."""
