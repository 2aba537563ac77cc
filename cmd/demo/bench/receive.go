package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
)

// receiver takes records over HTTP and over syslog on TCP, counts them and
// throws them away: it is to cost as little as it can, since it runs beside
// what is measured.
type receiver struct {
	records atomic.Int64
	bytes   atomic.Int64 // of records and what is around them, inflated

	server *http.Server
	url    string
	syslog net.Listener
	served sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	err   error // the first message that was none
}

func newReceiver() (*receiver, error) {
	h, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening the receiver's port: %w", err)
	}
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the receiver's port: %w", err), h.Close())
	}
	r := &receiver{url: "http://" + h.Addr().String() + "/ingest", syslog: s, conns: map[net.Conn]bool{}}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	r.served.Go(func() { _ = r.server.Serve(h) }) // http.ErrServerClosed
	r.served.Go(r.accept)
	return r, nil
}

// Close ends the receiver and breaks what is open.
func (r *receiver) Close() error {
	err := errors.Join(r.server.Close(), r.syslog.Close())
	r.mu.Lock()
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.served.Wait()
	return err
}

// reset begins to count anew.
func (r *receiver) reset() {
	r.records.Store(0)
	r.bytes.Store(0)
}

// check says whether as many records came as should have.
func (r *receiver) check(want int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if got := int(r.records.Load()); got != want {
		return fmt.Errorf("counting records: %d arrived, %d were to", got, want)
	}
	return nil
}

func (r *receiver) bad(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

var (
	windows = sync.Pool{New: func() any { return new([64 << 10]byte) }}
	gunzips = sync.Pool{New: func() any { return new(gzip.Reader) }}
)

// ServeHTTP takes one POST of NDJSON.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z := gunzips.Get().(*gzip.Reader)
		defer gunzips.Put(z)
		if err := z.Reset(body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	buf := windows.Get().(*[64 << 10]byte)
	defer windows.Put(buf)
	var records, size int64
	for {
		n, err := body.Read(buf[:])
		records += int64(bytes.Count(buf[:n], []byte{'\n'}))
		size += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	r.records.Add(records)
	r.bytes.Add(size)
}

func (r *receiver) accept() {
	for {
		c, err := r.syslog.Accept()
		if err != nil {
			return // closed
		}
		r.mu.Lock()
		r.conns[c] = true
		r.mu.Unlock()
		r.served.Go(func() {
			if err := r.frames(c); err != nil && !errors.Is(err, net.ErrClosed) {
				r.bad(fmt.Errorf("reading syslog: %w", err))
			}
			_ = c.Close()
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.conns, c)
		})
	}
}

// frames reads messages with octet counting (RFC 6587, section 3.4.1).
func (r *receiver) frames(c net.Conn) error {
	in := bufio.NewReaderSize(c, 256<<10)
	for {
		count, err := in.ReadSlice(' ')
		if errors.Is(err, io.EOF) && len(count) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(count[:len(count)-1]))
		if err != nil {
			return fmt.Errorf("reading the octet count: %w", err)
		}
		if _, err := in.Discard(n); err != nil {
			return err
		}
		r.records.Add(1)
		r.bytes.Add(int64(n))
	}
}
