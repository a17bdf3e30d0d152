"""Documents from Redis: one server, Sentinels, or a cluster."""
