"""The process and its surroundings: logs, signals, systemd, limits, periodic tasks."""
