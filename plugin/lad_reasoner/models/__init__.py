"""Model folders: what is in them, whether both transformers versions load them, and merging checkpoints."""
