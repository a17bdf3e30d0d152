"""A document from Redis: from one server, from servers behind Sentinels, or from a cluster."""
