"""HTTP/1.1 connections: the fast path, and twisted.web's parser as the general one."""
