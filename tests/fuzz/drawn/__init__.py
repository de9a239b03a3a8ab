"""What a case is drawn from: columns of every type, writers, conditions, side tables, layouts of the log."""
