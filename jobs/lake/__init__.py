"""The lake: Parquet partitions that are published whole by a manifest, on a local folder or on S3."""
