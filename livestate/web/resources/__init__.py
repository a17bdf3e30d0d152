"""The resources of the public site: documents, event streams, long polls, WebSockets, readiness and the viewer."""
