"""Tests of `livestate.web.resources`."""
