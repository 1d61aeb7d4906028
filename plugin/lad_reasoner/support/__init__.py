"""Errors, findings, files, progress and processes: what every layer uses."""
