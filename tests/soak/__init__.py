"""Long runs and measurements, started by hand: README.md says how."""
