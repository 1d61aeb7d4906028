"""The verbs of `lad` and `easyr1` that this package adds."""
