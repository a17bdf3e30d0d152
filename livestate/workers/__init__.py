"""The processes that serve clients, and the supervisor that feeds documents to them and replaces them.

Theory of operation. With `--workers=N`, the twistd process is the *supervisor*. It owns the sources, the documents, the
snapshot store and the admin site, and serves no public request itself. It binds the public sockets and keeps them open
whatever happens to the workers: connections that arrive at the socket of a dead worker wait there for its replacement.
For TCP, each worker has its own socket (SO_REUSEPORT). The kernel spreads connections evenly over these sockets, which
it does not do when several processes accept from one socket (`bench/NOTES.md`).

A *worker* runs the same server as a single process does (`livestate.web.site_service`). Its documents arrive through a
pipe (`worker_feed`, `messages`), as plain bytes: a worker makes the content codings that its clients ask for. Once a
second it sends the counters that have changed to the supervisor. This message is also its heartbeat: a worker that is
silent for five seconds is killed, and a worker that exits is replaced. New settings, certificates or code need a new
`generation` of workers, which replaces the old one as soon as all of it is serving.

Workers are forked by a *zygote* (`zygote`): a single-threaded process that has imported everything and created the TLS
contexts, but has no reactor, because each worker installs its own. A fork takes milliseconds, starting an interpreter
half a second. Forked workers also share memory, and they share the keys of TLS session tickets: OpenSSL creates these
keys with the context, and pyOpenSSL has no function to set them.

    supervisor --fork (a socket)--> zygote --fork--> worker
    supervisor <--pipe--> worker:  documents, Serve, Drain, Reopen -->   <-- Hello, Ready, Alive, LogEntry

No process outlives its supervisor. The zygote kills its workers, and each worker exits when its pipe is closed.
"""
