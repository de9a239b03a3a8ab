"""Ids: the string hash, and one encoder a file (pure functions int64 ids -> keys)."""
