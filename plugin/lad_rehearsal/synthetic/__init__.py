"""The synthetic product: how it looks (`render`), what can be wrong (`scenes`), how it is asked about (`qa`)."""
