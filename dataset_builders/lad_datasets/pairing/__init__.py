"""Which references a query is compared with."""
