package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"sync"
)

// Held is what the idle mode reports once its connections are open. It keeps them until its stdin is closed.
type Held struct {
	Connections int    `json:"connections"`
	Errors      int    `json:"errors"`
	FirstError  string `json:"first_error"`
}

func idle(to *target, connections int) {
	var mutex sync.Mutex
	var open []net.Conn
	var result Held
	tickets := make(chan struct{}, connections)
	for i := 0; i < connections; i++ {
		tickets <- struct{}{}
	}
	close(tickets)
	var wait sync.WaitGroup
	for i := 0; i < 16; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			request := to.request("")
			reader := bufio.NewReaderSize(nil, 16384)
			for range tickets {
				conn, err := to.dial(nil)
				if err == nil {
					_, err = conn.Write(request)
				}
				if err == nil {
					reader.Reset(conn)
					_, err = read(reader)
				}
				mutex.Lock()
				if err == nil {
					open = append(open, conn)
				} else {
					result.Errors++
					result.FirstError = err.Error()
				}
				mutex.Unlock()
			}
		}()
	}
	wait.Wait()
	result.Connections = len(open)
	report(result)
	io.Copy(io.Discard, os.Stdin)
	for _, conn := range open {
		conn.Close()
	}
}
