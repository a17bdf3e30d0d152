"""Tests of `livestate.sources.mongodb.source`."""
