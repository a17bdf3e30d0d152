"""Tests of `livestate.tls`."""
