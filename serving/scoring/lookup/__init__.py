"""From ids of requests to rows of served tables."""
