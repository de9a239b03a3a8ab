"""What a model takes: rows of a log -> ids, numbers and labels, one `Batch`."""
