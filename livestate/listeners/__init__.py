"""Listening sockets made from strports strings."""
