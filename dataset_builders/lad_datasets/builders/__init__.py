"""One module for each `lad build` verb."""
