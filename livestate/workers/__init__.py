"""Several processes that serve, and one that supervises them, asks the sources and holds the listening sockets.

Theory of operation. With `--workers=N` the twistd process is the *supervisor*: it has the sources, the documents, what
saves them and the admin site, and serves no reader. It binds the public sockets and keeps them open whatever becomes
of the workers: what arrives at a dead worker's socket waits there for the next one. For TCP each worker has a socket of
its own (SO_REUSEPORT): the kernel spreads connections evenly over them, which it does not where several processes
accept from one (`bench/NOTES.md`).

A *worker* is the same server as a single process (`livestate.web.site_service`), whose documents come down a pipe (`feed`,
`messages`) with every content coding made already. It tells the supervisor each second what it has counted, which is
also its sign of life: one that is silent for five is killed, and one that is gone is replaced. New settings,
certificates or code come with a new `generation` of workers, which takes the places of the old ones when it serves.

Workers are forked by a *zygote* (`zygote`), a process with one thread, everything imported, the TLS contexts made, and
no reactor: each worker makes its own. A fork takes milliseconds where a new interpreter takes half a second, memory is
shared, and all workers have the same keys for TLS session tickets, for which pyOpenSSL has no function: OpenSSL makes
them with the context, and a fork copies them.

    supervisor --fork (a socket)--> zygote --fork--> worker
    supervisor <--pipe--> worker:  documents, Serve, Drain, Reopen -->   <-- Hello, Ready, Alive, Said

Whoever loses its supervisor ends: the zygote kills its workers, and each worker sees the end of its pipe.
"""
