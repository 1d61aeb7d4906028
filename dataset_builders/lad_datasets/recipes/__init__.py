"""Recipes: which categories and defects form a GRPO set."""
