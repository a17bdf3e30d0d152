"""Listening sockets: endpoints made from strports strings, a service for each, and the set of those that serve."""
