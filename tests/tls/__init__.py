"""Tests of `livestate.tls.contexts`."""
