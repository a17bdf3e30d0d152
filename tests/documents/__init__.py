"""Tests of `livestate.documents`."""
