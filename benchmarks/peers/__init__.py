"""Contenders from other projects: each trains in an environment of its own and reads the same split files."""
