"""`lad check`: one module for each kind of file."""
