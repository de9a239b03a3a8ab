"""`embtables inspect`: figures of a version's tables, for a terminal, as JSON, as a page."""
