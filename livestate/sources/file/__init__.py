"""A document from a file."""
