"""Training: the loop, the learner, checkpoints, what a run begins with."""
