"""The event log: what was served and what users did, appended durably and read in order."""
