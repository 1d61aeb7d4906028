"""`easyr1 rehearse`: two real steps of a config on a CPU, with a tiny model of the same architecture."""
