"""A document from another HTTP server."""
