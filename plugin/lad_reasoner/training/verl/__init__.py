"""What verl reads and loads."""
