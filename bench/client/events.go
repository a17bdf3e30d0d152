package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Opened is what the events mode reports once all its streams have answered 200.
type Opened struct {
	Connections int    `json:"connections"`
	Errors      int    `json:"errors"`
	FirstError  string `json:"first_error"`
}

// Streams is what the events mode received until its stdin was closed.
type Streams struct {
	// For each version, the microseconds from its write until each subscriber had received it completely.
	Delays map[int64][]int32 `json:"delays"`
	// For each version, the number of subscribers for which it was the last.
	Last map[int64]int `json:"last"`
	// Versions that were skipped because a newer one was sent instead.
	Skipped int `json:"skipped"`
	// Events older than the subscriber's version, or whose data is not the complete document.
	Wrong int `json:"wrong"`
	// Streams that were closed by the server.
	Ended      int    `json:"ended"`
	FirstError string `json:"first_error"`
}

// A socket is not registered with Go's own poller. Thousands of subscribers then cost one epoll loop instead of waking a
// goroutine for each event, and the load core is less busy when an event arrives.
type socket int

var errNoData net.Error = noData{}

// noData tells crypto/tls that there is nothing to read yet. It keeps an incomplete record for the next read.
type noData struct{}

func (noData) Error() string   { return "nothing to read yet" }
func (noData) Timeout() bool   { return false }
func (noData) Temporary() bool { return true }

func (s socket) Read(into []byte) (int, error) {
	for {
		n, err := syscall.Read(int(s), into)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, errNoData
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (s socket) Write(data []byte) (int, error) {
	written := 0
	for written < len(data) {
		n, err := syscall.Write(int(s), data[written:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

func (s socket) Close() error                     { return syscall.Close(int(s)) }
func (s socket) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s socket) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s socket) SetDeadline(time.Time) error      { return nil }
func (s socket) SetReadDeadline(time.Time) error  { return nil }
func (s socket) SetWriteDeadline(time.Time) error { return nil }

// stream is one subscriber.
type stream struct {
	from    io.Reader // the socket, or TLS on top of it
	answer  bool      // whether the response head was read
	chunked bool
	left    int    // remaining bytes of a chunk, including its line end
	line    []byte // incomplete line with the size of a chunk
	partial []byte // incomplete response head or event
	last    int64
}

type listening struct {
	to      *target
	epoll   int
	length  int // of the document in each event
	streams []*stream
	open    atomic.Int64
	ended   int
	failure string
	saw     Streams
}

// dial connects a blocking socket, with TLS if configured, and sends the request.
func (l *listening) dial(address *syscall.SockaddrInet4, path string) (socket, *stream, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	raw, made := socket(fd), &stream{from: socket(fd)}
	wait := syscall.Timeval{Sec: 20}
	syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait)
	syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &wait)
	if err := syscall.Connect(fd, address); err != nil {
		raw.Close()
		return 0, nil, err
	}
	var writer io.Writer = raw
	if l.to.config != nil {
		conn := tls.Client(raw, l.to.config)
		if err := conn.Handshake(); err != nil {
			raw.Close()
			return 0, nil, err
		}
		writer, made.from = conn, conn
	}
	target := &target{address: l.to.address, path: path}
	if _, err := writer.Write(target.request("Accept: text/event-stream\r\n")); err != nil {
		raw.Close()
		return 0, nil, err
	}
	return raw, made, syscall.SetNonblock(fd, true)
}

func (l *listening) connect(readers int, path string) error {
	where, err := net.ResolveTCPAddr("tcp4", l.to.address)
	if err != nil {
		return err
	}
	address := &syscall.SockaddrInet4{Port: where.Port}
	copy(address.Addr[:], where.IP.To4())
	var mutex sync.Mutex
	var failed error
	var wait sync.WaitGroup
	tickets := make(chan struct{}, readers)
	for i := 0; i < readers; i++ {
		tickets <- struct{}{}
	}
	close(tickets)
	for i := 0; i < 16; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range tickets {
				fd, made, err := l.dial(address, path)
				mutex.Lock()
				if err == nil {
					// Before it is added to epoll, since the loop looks up streams by their file descriptor.
					l.streams[fd] = made
					event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(fd)}
					err = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, int(fd), &event)
				}
				if err != nil {
					failed = err
				}
				mutex.Unlock()
			}
		}()
	}
	wait.Wait()
	return failed
}

// listen reads every stream until `done` is closed.
func (l *listening) listen(done <-chan struct{}) {
	events := make([]syscall.EpollEvent, 512)
	buffer := make([]byte, 1<<17)
	for {
		select {
		case <-done:
			return
		default:
		}
		n, err := syscall.EpollWait(l.epoll, events, 100)
		if err != nil && err != syscall.EINTR {
			l.failure = err.Error()
			return
		}
		for _, event := range events[:max(n, 0)] {
			fd := int(event.Fd)
			s := l.streams[fd]
			if s == nil {
				continue
			}
			if err := l.read(s, buffer); err != nil {
				l.ended++
				l.failure = err.Error()
				l.streams[fd] = nil
				syscall.Close(fd)
			}
		}
	}
}

// read reads all available data: with one read from a plain socket, record by record with TLS.
func (l *listening) read(s *stream, buffer []byte) error {
	_, plain := s.from.(socket)
	for {
		n, err := s.from.Read(buffer)
		if n > 0 {
			if err := l.feed(s, buffer[:n]); err != nil {
				return err
			}
		}
		var temporary net.Error
		if errors.As(err, &temporary) && temporary == errNoData {
			return nil
		}
		if err != nil {
			return err
		}
		if plain && n < len(buffer) {
			return nil
		}
	}
}

// feed parses bytes of a response: first its head, then its body, chunked or not.
func (l *listening) feed(s *stream, data []byte) error {
	if !s.answer {
		s.partial = append(s.partial, data...)
		head, rest, whole := bytes.Cut(s.partial, []byte("\r\n\r\n"))
		if !whole {
			return nil
		}
		if len(head) < 12 || string(head[9:12]) != "200" {
			return fmt.Errorf("not 200: %.60q", head)
		}
		head = bytes.ToLower(head)
		if !bytes.Contains(head, []byte("text/event-stream")) {
			return fmt.Errorf("not an event stream: %.200q", head)
		}
		s.chunked = bytes.Contains(head, []byte("transfer-encoding: chunked"))
		s.answer = true
		s.partial = nil
		l.open.Add(1)
		data = rest
	}
	if !s.chunked {
		l.events(s, data)
		return nil
	}
	for len(data) > 0 {
		if s.left > 0 {
			n := min(s.left, len(data))
			// The last two bytes of `left` are the line end of the chunk.
			if payload := min(n, s.left-2); payload > 0 {
				l.events(s, data[:payload])
			}
			s.left -= n
			data = data[n:]
			continue
		}
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			s.line = append(s.line, data...)
			return nil
		}
		s.line = append(s.line, data[:end]...)
		size, err := strconv.ParseInt(string(bytes.TrimSpace(s.line)), 16, 32)
		if err != nil {
			return fmt.Errorf("not a chunk size: %.40q", s.line)
		}
		if size == 0 {
			return io.EOF
		}
		s.line, s.left, data = s.line[:0], int(size)+2, data[end+1:]
	}
	return nil
}

// events splits the stream into events at blank lines, and keeps an incomplete event for the next call.
func (l *listening) events(s *stream, data []byte) {
	if len(s.partial) > 0 {
		s.partial = append(s.partial, data...)
		data = s.partial
	}
	for {
		event, rest, whole := bytes.Cut(data, []byte("\n\n"))
		if !whole {
			break
		}
		l.event(s, event)
		data = rest
	}
	s.partial = append(s.partial[:0], data...)
}

// event records when a version of the document arrived. Comments, `retry` and other fields are ignored.
func (l *listening) event(s *stream, event []byte) {
	start := 0
	if !bytes.HasPrefix(event, []byte("data:")) {
		if start = bytes.Index(event, []byte("\ndata:")) + 1; start == 0 {
			return
		}
	}
	document, _, _ := bytes.Cut(event[start+len("data:"):], []byte("\n"))
	document = bytes.TrimSpace(document)
	now := time.Now().UnixNano()
	version, written, ok := stamps(document)
	if !ok || len(document) != l.length || document[len(document)-1] != '}' || version <= s.last {
		l.saw.Wrong++
		return
	}
	if s.last != 0 {
		l.saw.Skipped += int(version - s.last - 1)
		l.saw.Delays[version] = append(l.saw.Delays[version], int32((now-written)/1000))
	}
	s.last = version
}

// events opens `readers` streams, reports when all are open, and reports what they received when its stdin is closed.
func events(to *target, readers int, path string, length int) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		report(Opened{FirstError: err.Error(), Errors: readers})
		return
	}
	l := &listening{to: to, epoll: epoll, length: length, streams: make([]*stream, readers+1024)}
	l.saw = Streams{Delays: map[int64][]int32{}, Last: map[int64]int{}}
	done, over := make(chan struct{}), make(chan struct{})
	go func() { l.listen(done); close(over) }()
	result := Opened{}
	if err := l.connect(readers, path); err != nil {
		result.FirstError = err.Error()
	}
	for deadline := time.Now().Add(20 * time.Second); int(l.open.Load()) < readers && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	result.Connections = int(l.open.Load())
	result.Errors = readers - result.Connections
	if result.Errors > 0 && result.FirstError == "" {
		result.FirstError = "no answer"
	}
	report(result)
	io.Copy(io.Discard, os.Stdin)
	close(done)
	<-over
	for _, s := range l.streams {
		if s != nil {
			l.saw.Last[s.last]++
		}
	}
	l.saw.Ended, l.saw.FirstError = l.ended, l.failure
	report(l.saw)
}
