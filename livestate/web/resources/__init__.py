"""What the public site serves: documents, event streams, long polls, WebSockets, the viewer."""
