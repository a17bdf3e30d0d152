"""Documents from other HTTP servers."""
