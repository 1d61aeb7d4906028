"""Synthetic products: their images (`render`), their defects (`scenes`), their questions and answers (`qa`)."""
