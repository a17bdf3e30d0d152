"""Tests of `livestate.web.responses`."""
