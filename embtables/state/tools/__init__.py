"""Operations on versions besides training: compaction, comparison, figures."""
