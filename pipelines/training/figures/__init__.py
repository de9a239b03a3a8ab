"""Figures of a part of the log, and what is said of figures and losses that cannot be right."""
