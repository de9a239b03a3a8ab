"""State under a changed schema."""
