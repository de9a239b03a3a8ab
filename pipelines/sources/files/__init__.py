"""The files of a log: found, recognised, their footers read, their types made one."""
