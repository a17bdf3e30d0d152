"""TLS: certificates and their renewal, server and client contexts, and the development certificate."""
