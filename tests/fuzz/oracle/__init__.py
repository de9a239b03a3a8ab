"""The rules of docs/data-rules.md and docs/reader.md a second time, value by value; nothing here is the package's."""
