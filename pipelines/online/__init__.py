"""The online loop's half of training: events of a log become samples, in an order that a restart repeats."""
