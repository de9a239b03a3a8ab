"""Examples made from a log without examples: sampled negatives, counts of what happened before."""
