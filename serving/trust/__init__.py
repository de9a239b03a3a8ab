"""Replay of logged requests, explanations of scores, audits of keys."""
