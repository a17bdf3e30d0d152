"""Tests of `livestate.web.http1`."""
