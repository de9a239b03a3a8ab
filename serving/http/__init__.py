"""The HTTP side: routes, limits, metrics, logs, admin and the page."""
