"""Documents from files."""
