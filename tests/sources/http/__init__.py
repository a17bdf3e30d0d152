"""Tests of `livestate.sources.http.source`."""
