"""Tests of `livestate.cli.main`."""
