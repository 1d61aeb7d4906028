"""`lad demo`: the whole chain on a CPU with a tiny model."""
