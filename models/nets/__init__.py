"""The models' networks, one per file; each receives the views that it looks its embeddings up through."""
