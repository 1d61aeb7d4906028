"""EasyR1 without a GPU: a package that stands in for vLLM, and what a launcher adds to an EasyR1 run to use it."""
