"""Texts that, replaced, break one invariant each, and the tests that must notice: `make mutants`."""
