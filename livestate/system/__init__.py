"""The process and its environment: logs, signals, systemd, resource limits, periodic tasks and measurements."""
