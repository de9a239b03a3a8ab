"""What is done to versions besides training: compaction, comparison, figures."""
