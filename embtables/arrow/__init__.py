"""Arrow columns in few types: of one array, and of a column whose files differ. Nothing here knows a schema."""
