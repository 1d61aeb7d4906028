"""What EasyR1 reads and loads."""
