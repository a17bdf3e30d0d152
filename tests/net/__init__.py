"""Tests of the direct sockets: real connections on 127.0.0.1, each test with a reactor of its own."""
