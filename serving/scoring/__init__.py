"""From a request to scores: features, side tables, lookups, dense engines, batches of requests."""
