"""Live documents: snapshots, history, polling, the copies on disk, and the registry of all of them."""
