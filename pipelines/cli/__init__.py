"""The command line `embtables`; one file for each group of commands."""
