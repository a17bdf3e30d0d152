"""Tests of `livestate.listeners`."""
