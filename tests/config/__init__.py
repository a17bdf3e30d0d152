"""Tests of `livestate.config`."""
