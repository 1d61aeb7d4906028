"""The files that builders read and write."""
