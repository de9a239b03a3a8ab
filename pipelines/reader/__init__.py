"""Parts of the parquet reader, one a file; `pipelines.parquet` puts them together."""
