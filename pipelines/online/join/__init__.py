"""Impressions and actions of an event log become samples: the reader, the joiner, their state."""
