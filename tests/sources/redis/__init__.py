"""Tests of `livestate.sources.redis.source`."""
