"""What a user runs: the parquet reader, training, evaluation, prediction and the command line."""
