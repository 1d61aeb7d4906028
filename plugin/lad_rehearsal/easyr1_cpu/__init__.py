"""EasyR1 without a GPU: a package that replaces vLLM, and the environment of a run that uses it."""
