"""Tests of livestate as users run it, with child processes, real servers and real files.

With `LIVESTATE_TEST_REACTOR=epoll` they run livestate on Twisted's stock reactor, otherwise on its own.
"""
