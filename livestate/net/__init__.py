"""
Direct sockets for any Twisted server: a reactor and its transports.

Nothing here depends on the rest of livestate.  It imports only Twisted, pyOpenSSL
and the standard library, so any Twisted server may use it.  Import
`livestate.net.reactor` and call its `install()` before anything imports
`twisted.internet.reactor`.
"""
