"""Tests of `livestate.system`."""
