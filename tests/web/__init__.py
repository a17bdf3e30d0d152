"""Tests of `livestate.web`."""
