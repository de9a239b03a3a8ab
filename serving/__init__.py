"""Serving: scores and embeddings of published versions, over HTTP, with rows that follow the trainer.

    trainer -> serving versions, a chain in a state folder (docs/format.md)
    versions/   Follower -> verified, values checked -> `ServedVersion`: fresh tables for a snapshot; a delta is applied
                to the tables in place while readers run -> `Live.put`, one swap of dense weights and version
    scoring/    request -> the features stage, columns of side tables joined -> lookups -> dense engine -> scores
    http/       bytes -> `wire` types -> `Service` -> bytes; limits, metrics, logs, admin, page
    client      the same `wire` types from the other side
    trust/      replay, explain, audit

Imports go one way: wire <- versions <- scoring <- service <- http. The client imports `wire` alone.
"""
