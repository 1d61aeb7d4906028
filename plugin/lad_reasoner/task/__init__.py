"""The task, its responses and its rewards, as the paper states them (arXiv 2504.12749)."""
