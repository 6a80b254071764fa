"""Tables: from CSV, TSV and Parquet files to batches."""
