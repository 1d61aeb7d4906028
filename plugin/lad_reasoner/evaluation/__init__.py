"""Scores, their statistics, comparisons and the report."""
