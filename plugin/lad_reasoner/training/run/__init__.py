"""A GRPO run: planned, started and followed."""
