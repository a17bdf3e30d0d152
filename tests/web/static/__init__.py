"""Tests of `livestate.web.resources.viewer`."""
