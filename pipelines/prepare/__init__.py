"""Examples made of a log that holds none: sampled negatives, counts of what happened before."""
