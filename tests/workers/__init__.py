"""Tests of `livestate.workers`."""
