"""Where versions are stored: a folder that survives crashes, and the versions, pins and lease in it."""
