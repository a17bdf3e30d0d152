"""Tests of `livestate.web.admin`."""
