"""
Direct sockets for any Twisted server: a reactor and its transports.

Nothing here knows of the rest of the package: it imports Twisted, pyOpenSSL
and the standard library only, so any Twisted server may use it.  Import
`livestate.net.reactor` and call its `install()` before anything imports
`twisted.internet.reactor`.
"""
