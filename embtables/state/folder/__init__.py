"""Where versions lie: a folder that survives crashes, and the versions, pins and lease in it."""
