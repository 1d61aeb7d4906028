"""Everything that lets verl train and roll out without a GPU."""
