"""Running features in a server: the fold of its event log, and the columns of requests that it fills."""
