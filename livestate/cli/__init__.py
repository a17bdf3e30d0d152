"""The `livestate` command and its subcommands check, publish and watch."""
