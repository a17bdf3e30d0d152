"""Responses as values, and the responder that makes the responses of one document."""
