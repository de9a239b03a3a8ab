"""Training by several ranks on Ray."""
