"""Export raw LLM request logs from Parquet batches to committed, partitioned JSONL."""
