"""Documents over HTTP: the sites, their connections, resources and responses, and the streams."""
