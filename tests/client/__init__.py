"""Tests of `livestate.client`."""
