"""Tests of `livestate.net`, on real connections to 127.0.0.1; most tests build their own reactor."""
