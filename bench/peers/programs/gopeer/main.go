// The Go peer: serves the document from memory with an ETag, 304 responses, and a gzip variant compressed once. This is
// what a Go programmer would write for this job with only net/http. Its event stream is in events.go.
//
//	gopeer -http 127.0.0.1:8080 -https 127.0.0.1:8443 -cert cert.pem -key key.pem state.json
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// A variant is the document in one content coding, with everything its responses need.
type variant struct {
	body   []byte
	length string
	coding string
	etag   string
}

// A snapshot is replaced as a whole when the document changes. A request loads it once.
type snapshot struct{ plain, gzip variant }

var current atomic.Pointer[snapshot]

func render(body []byte) (*snapshot, error) {
	var packed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := writer.Write(body); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	pack := func(body []byte, coding, suffix string) variant {
		sum := sha256.Sum256(body)
		return variant{body, strconv.Itoa(len(body)), coding, `"` + hex.EncodeToString(sum[:8]) + suffix + `"`}
	}
	return &snapshot{pack(body, "", ""), pack(packed.Bytes(), "gzip", "-gz")}, nil
}

func serve(w http.ResponseWriter, r *http.Request) {
	s := current.Load()
	v := &s.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		v = &s.gzip
	}
	h := w.Header()
	h.Set("ETag", v.etag)
	h.Set("Cache-Control", "public, max-age=1")
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == v.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", v.length)
	if v.coding != "" {
		h.Set("Content-Encoding", v.coding)
	}
	w.Write(v.body)
}

func main() {
	plain := flag.String("http", "", "address for HTTP")
	secure := flag.String("https", "", "address for HTTPS")
	cert := flag.String("cert", "", "certificate file")
	key := flag.String("key", "", "key file")
	path := flag.String("path", "/state.json", "path of the document")
	flag.Parse()
	body, err := os.ReadFile(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	first, err := render(body)
	if err != nil {
		log.Fatal(err)
	}
	current.Store(first)
	announce(body)
	http.HandleFunc(*path, serve)
	http.HandleFunc(*path+"/events", events)
	http.HandleFunc("POST "+*path+"/publish", publish)
	// HTTPS is HTTP/1.1, as for all other peers, since wrk does not offer ALPN.
	go func() { log.Fatal(http.ListenAndServe(*plain, nil)) }()
	log.Fatal(http.ListenAndServeTLS(*secure, *cert, *key, nil))
}
