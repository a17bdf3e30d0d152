"""The admin site: health, readiness, status and metrics, and the host names that it answers to."""
