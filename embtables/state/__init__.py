"""State that survives: what tables hold, as versions in a folder. Reads and writes without torch."""
