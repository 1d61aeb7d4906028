"""Dataset builders: image folders to reference/query pairs, QA, parquet and LLaMA-Factory data."""
