"""Live documents: polling a source, the current snapshot, its history, its copy on disk, and the registry of all."""
