package main

import (
	"bufio"
	"crypto/tls"
	"sort"
	"sync"
	"time"
)

// Connections is the result of the connect mode.
type Connections struct {
	Connections int     `json:"connections"`
	Resumed     int     `json:"resumed"`
	Errors      int     `json:"errors"`
	FirstError  string  `json:"first_error"`
	Seconds     float64 `json:"seconds"`
	P50         float64 `json:"p50_us"`
	P99         float64 `json:"p99_us"`
}

type visits struct {
	took       []time.Duration
	resumed    int
	errors     int
	firstError string
}

// connect measures new connections, from `workers` goroutines. Each opens a connection, sends one request, reads the
// response and closes. Each has its own TLS session cache, like a browser.
func connect(to *target, workers int, length time.Duration, resume bool) Connections {
	all := make([]visits, workers)
	var wait sync.WaitGroup
	start := time.Now()
	for i := range all {
		wait.Add(1)
		go func(v *visits) {
			defer wait.Done()
			var cache tls.ClientSessionCache
			if resume {
				cache = tls.NewLRUClientSessionCache(4)
			}
			request := to.request("Connection: close\r\n")
			reader := bufio.NewReaderSize(nil, 16384)
			for time.Since(start) < length {
				began := time.Now()
				if err := visit(to, cache, request, reader, v); err != nil {
					v.errors++
					if v.firstError == "" {
						v.firstError = err.Error()
					}
					time.Sleep(10 * time.Millisecond)
					continue
				}
				v.took = append(v.took, time.Since(began))
			}
		}(&all[i])
	}
	wait.Wait()
	result := Connections{Seconds: time.Since(start).Seconds()}
	var took []time.Duration
	for _, v := range all {
		took = append(took, v.took...)
		result.Resumed += v.resumed
		result.Errors += v.errors
		if v.firstError != "" {
			result.FirstError = v.firstError
		}
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	result.Connections = len(took)
	if n := len(took); n > 0 {
		result.P50 = float64(took[n/2].Nanoseconds()) / 1e3
		result.P99 = float64(took[n*99/100].Nanoseconds()) / 1e3
	}
	return result
}

// visit makes one connection with one request.
func visit(to *target, cache tls.ClientSessionCache, request []byte, reader *bufio.Reader, v *visits) error {
	conn, err := to.dial(cache)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = conn.Write(request); err != nil {
		return err
	}
	reader.Reset(conn)
	if _, err = read(reader); err != nil {
		return err
	}
	if secure, ok := conn.(*tls.Conn); ok && secure.ConnectionState().DidResume {
		v.resumed++
	}
	return nil
}
