"""What a run begins with: a former run's tables and dense weights, rows from files."""
