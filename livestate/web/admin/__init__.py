"""The admin site: health, readiness, status and metrics."""
