"""The `livestate` command: check, publish, watch."""
