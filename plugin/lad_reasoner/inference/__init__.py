"""Run a model on pairs: backends, batch prediction, one pair."""
