"""Tests of `livestate.sources`."""
