"""Rows that a server reads while versions are taken over."""
