"""Why a score is what it is, and whether it is what it should be.

fingerprints  digests of what a model read of a request, kept in the log of requests
replay        logged requests scored again, offline: what differs, and in which feature first
explain       what each feature adds to the score of one candidate
audit         whether a deleted key is anywhere: versions, side tables, a live table
"""
