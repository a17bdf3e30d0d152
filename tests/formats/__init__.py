"""Tests of `livestate.formats`."""
