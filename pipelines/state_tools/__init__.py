"""What the `embtables state` commands do."""
