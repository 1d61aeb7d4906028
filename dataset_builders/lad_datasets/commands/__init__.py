"""The verbs of `lad` that build, annotate, review and check data."""
