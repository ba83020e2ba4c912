"""Hold the tables and the transaction."""
