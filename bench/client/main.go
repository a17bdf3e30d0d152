// The bench's own client, for what wrk cannot do: new connections (with full and resumed TLS handshakes), idle
// connections, polling clients, and thousands of subscribers of an event stream. Each mode prints its result as a line of
// JSON.
//
//	client connect -address 127.0.0.1:8443 -tls -resume -workers 32 -seconds 5
//	client idle    -address 127.0.0.1:8443 -tls -connections 5000
//	client poll    -address 127.0.0.1:8080 -readers 1000 -every 1s -seconds 30 [-mode poll|wait|events]
//	client events  -address 127.0.0.1:8080 -readers 5000 -events /state.json/events -length 4300
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

type target struct {
	address string
	path    string
	config  *tls.Config // nil: plain HTTP
}

// dial opens one connection. It offers only X25519: some servers' TLS libraries have the hybrid post-quantum key exchange
// and others do not, which would compare the ages of libraries, not servers.
func (t *target) dial(cache tls.ClientSessionCache) (net.Conn, error) {
	raw, err := net.DialTimeout("tcp", t.address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if t.config == nil {
		return raw, nil
	}
	config := t.config.Clone()
	config.ClientSessionCache = cache
	conn := tls.Client(raw, config)
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

func (t *target) request(more string) []byte {
	return []byte("GET " + t.path + " HTTP/1.1\r\nHost: " + t.address + "\r\n" + more + "\r\n")
}

type answer struct {
	status int
	etag   string
	body   []byte
}

var errNoLength = errors.New("a response without Content-Length")

// read reads one response: status, ETag and a body of Content-Length bytes (none for a 304).
func read(from *bufio.Reader) (answer, error) {
	var got answer
	length := -1
	for first := true; ; first = false {
		line, err := from.ReadSlice('\n')
		if err != nil {
			return got, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if len(line) < 12 {
				return got, fmt.Errorf("not a status line: %q", line)
			}
			if got.status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return got, err
			}
			continue
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		if bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return got, err
			}
		} else if bytes.EqualFold(name, []byte("etag")) {
			got.etag = string(value)
		}
	}
	if got.status == 304 || got.status == 204 {
		return got, nil
	}
	if length < 0 {
		return got, errNoLength
	}
	got.body = make([]byte, length)
	_, err := io.ReadFull(from, got.body)
	return got, err
}

func report(result any) {
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "client connect|idle|poll|events …")
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	address := flags.String("address", "", "host:port")
	path := flags.String("path", "/state.json", "path of the document")
	secure := flags.Bool("tls", false, "speak TLS")
	resume := flags.Bool("resume", false, "resume TLS sessions")
	workers := flags.Int("workers", 32, "concurrent connections (connect)")
	seconds := flags.Float64("seconds", 5, "duration in seconds")
	connections := flags.Int("connections", 1000, "connections to hold (idle)")
	readers := flags.Int("readers", 1000, "number of clients (poll, events)")
	every := flags.Duration("every", time.Second, "time between the polls of a client")
	mode := flags.String("mode", "poll", "transport: poll, wait (long polling) or events")
	stream := flags.String("events", "", "path of the event stream")
	size := flags.Int("length", 0, "bytes of the document in each event (events)")
	if err := flags.Parse(os.Args[2:]); err != nil {
		os.Exit(2)
	}
	to := &target{address: *address, path: *path}
	if *secure {
		to.config = &tls.Config{
			InsecureSkipVerify: true, // the certificate was created for this run, and only the cost matters
			CurvePreferences:   []tls.CurveID{tls.X25519},
		}
	}
	length := time.Duration(*seconds * float64(time.Second))
	switch os.Args[1] {
	case "connect":
		report(connect(to, *workers, length, *resume))
	case "idle":
		idle(to, *connections)
	case "poll":
		report(poll(to, *readers, *every, length, *mode, *stream))
	case "events":
		events(to, *readers, *stream, *size)
	default:
		fmt.Fprintln(os.Stderr, "no such mode:", os.Args[1])
		os.Exit(2)
	}
}
