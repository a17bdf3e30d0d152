package main

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
)

// A version is one event, framed once for all subscribers. `newer` is closed when there is a newer one.
type version struct {
	number int64
	frame  []byte
	newer  chan struct{}
}

var latest atomic.Pointer[version]

// announce makes a document the latest version, and notifies all subscribers.
func announce(document []byte) {
	previous := latest.Load()
	next := &version{newer: make(chan struct{})}
	if previous != nil {
		next.number = previous.number + 1
	}
	next.frame = append(strconv.AppendInt([]byte("id: "), next.number, 10), "\ndata: "...)
	next.frame = append(append(next.frame, bytes.TrimSpace(document)...), "\n\n"...)
	latest.Store(next)
	if previous != nil {
		close(previous.newer)
	}
}

// publish handles a POST with the next document as its body.
func publish(w http.ResponseWriter, r *http.Request) {
	document, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	next, err := render(document)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	current.Store(next)
	announce(document)
	w.WriteHeader(http.StatusNoContent)
}

// events sends the newest version, then every newer one. A slow subscriber skips to the newest.
func events(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	for {
		v := latest.Load()
		if _, err := w.Write(v.frame); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-v.newer:
		case <-r.Context().Done():
			return
		}
	}
}
