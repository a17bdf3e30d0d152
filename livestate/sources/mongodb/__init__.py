"""A document from a MongoDB collection, and change streams to learn of its changes."""
