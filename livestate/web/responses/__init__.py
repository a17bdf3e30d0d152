"""Answers as values: a response, and the responder that makes those of one document."""
