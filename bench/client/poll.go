package main

import (
	"bufio"
	"bytes"
	"math/rand"
	"sort"
	"strconv"
	"sync"
	"time"
)

// A Sample is [version of the document, microseconds from its write in the store until this client had it].
type Sample [2]int64

// Readings is the result of the poll mode.
type Readings struct {
	Readers    int      `json:"readers"`
	Requests   int      `json:"requests"`
	Errors     int      `json:"errors"`
	FirstError string   `json:"first_error"`
	Samples    []Sample `json:"samples"`
	// Latency of a poll, from sending the request until its response was read. Long polls and events have none.
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
	Max float64 `json:"max_us"`
}

// stamps returns the version and the time of writing that the bench puts into each document.
func stamps(document []byte) (version, written int64, ok bool) {
	return number(document, `"version":`), number(document, `"written_ns":`),
		bytes.Contains(document, []byte(`"written_ns":`))
}

func number(document []byte, key string) int64 {
	_, rest, _ := bytes.Cut(document, []byte(key))
	rest = bytes.TrimLeft(rest, " ")
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, _ := strconv.ParseInt(string(rest[:end]), 10, 64)
	return n
}

type client struct {
	samples  []Sample
	requests int
	errors   int
	first    string
	last     int64
	took     []time.Duration
}

// record records when a version was first seen. The first document is ignored: it existed before the client connected.
func (c *client) record(document []byte) {
	now := time.Now().UnixNano()
	version, written, ok := stamps(document)
	if !ok || version == c.last {
		return
	}
	if c.last != 0 {
		c.samples = append(c.samples, Sample{version, (now - written) / 1000})
	}
	c.last = version
}

func poll(to *target, readers int, every, length time.Duration, mode, events string) Readings {
	all := make([]client, readers)
	end := time.Now().Add(length)
	var wait sync.WaitGroup
	for i := range all {
		wait.Add(1)
		go func(c *client) {
			defer wait.Done()
			time.Sleep(time.Duration(rand.Int63n(int64(every)))) // each client has its own phase
			for time.Now().Before(end) {
				var err error
				if mode == "events" {
					err = c.listen(to, events, end)
				} else {
					err = c.ask(to, every, end, mode == "wait")
				}
				if err != nil && time.Now().Before(end) {
					c.errors++
					c.first = err.Error()
					time.Sleep(200 * time.Millisecond)
				}
			}
		}(&all[i])
	}
	wait.Wait()
	result := Readings{Readers: readers, Samples: []Sample{}}
	var took []time.Duration
	for _, c := range all {
		took = append(took, c.took...)
		result.Requests += c.requests
		result.Errors += c.errors
		result.Samples = append(result.Samples, c.samples...)
		if c.first != "" {
			result.FirstError = c.first
		}
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	if n := len(took); n > 0 {
		result.P50 = float64(took[n/2].Nanoseconds()) / 1e3
		result.P99 = float64(took[n*99/100].Nanoseconds()) / 1e3
		result.Max = float64(took[n-1].Nanoseconds()) / 1e3
	}
	return result
}

// ask polls over one keep-alive connection, at a fixed interval or by long polling.
func (c *client) ask(to *target, every time.Duration, end time.Time, longPoll bool) error {
	conn, err := to.dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	from := bufio.NewReaderSize(conn, 8192)
	etag := ""
	for next := time.Now(); time.Now().Before(end); {
		more := ""
		if etag != "" {
			more = "If-None-Match: " + etag + "\r\n"
			if longPoll {
				more += "Prefer: wait=30\r\n"
			}
		}
		conn.SetDeadline(end.Add(5 * time.Second))
		if longPoll {
			conn.SetDeadline(end)
		}
		began := time.Now()
		if _, err := conn.Write(to.request(more)); err != nil {
			return err
		}
		got, err := read(from)
		if err != nil {
			return err
		}
		c.requests++
		if !longPoll {
			c.took = append(c.took, time.Since(began))
		}
		if got.status == 200 {
			c.record(got.body)
			etag = got.etag
		}
		if !longPoll {
			next = next.Add(every)
			time.Sleep(time.Until(next))
		}
	}
	return nil
}

// listen reads an event stream. A version is received with the blank line that ends its event.
func (c *client) listen(to *target, path string, end time.Time) error {
	conn, err := to.dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(end)
	stream := &target{address: to.address, path: path}
	if _, err := conn.Write(stream.request("Accept: text/event-stream\r\n")); err != nil {
		return err
	}
	c.requests++
	from := bufio.NewReaderSize(conn, 65536)
	var event []byte
	for {
		line, err := from.ReadBytes('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			c.record(event)
			event = event[:0]
		} else if data, is := bytes.CutPrefix(line, []byte("data:")); is {
			event = append(event, data...)
		}
	}
}
