"""Tests of `livestate.cli`."""
