"""Thin adapters between this package and the trainers: EasyR1, verl, LLaMA-Factory."""
