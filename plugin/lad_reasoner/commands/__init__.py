"""One module for each verb of `lad` and `easyr1`."""
