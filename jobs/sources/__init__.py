"""Where the rows come from: files or a database, mapped to the tables' columns, streamed in batches."""
