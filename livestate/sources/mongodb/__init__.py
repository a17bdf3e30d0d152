"""Documents from MongoDB."""
