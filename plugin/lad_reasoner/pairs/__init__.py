"""The reference/query pair: its schema, its reader, its images and their tokens."""
