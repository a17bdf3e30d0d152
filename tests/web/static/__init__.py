"""Tests of the files in `livestate/web/static`."""
