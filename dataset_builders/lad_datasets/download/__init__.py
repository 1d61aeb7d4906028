"""Datasets from their publishers: fetched, verified, and unpacked into the layout that the builders read."""
