"""livestate as its users run it: child processes, real servers, real files.

`LIVESTATE_TEST_REACTOR=epoll` has the same tests run livestate on Twisted's stock reactor; empty, on its own.
"""
