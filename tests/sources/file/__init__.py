"""Tests of `livestate.sources.file.source`."""
