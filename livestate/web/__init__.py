"""The document over HTTP: twisted.web resources, and the answers they give."""
