"""Training without a GPU: rehearsals, CPU runtimes for verl and EasyR1, synthetic data and the demo."""
