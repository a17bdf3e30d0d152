"""Pure functions on bytes and text: content negotiation, event streams, merge patches, JSON Pointer, safe JSON text."""
