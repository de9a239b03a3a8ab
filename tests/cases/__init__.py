"""Logs as people really have them, each with what `embtables` must make of it.

A case is a function that writes a small log and returns a configuration as YAML text; its decorator says what is
right: the rows that train and the ids that their table then holds, or what the one message says. The cases were found
in public reports of users of comparable software; each stands for a kind of fault.
"""
