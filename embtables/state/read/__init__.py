"""Versions read back: files verified, rows by range, chains merged."""
