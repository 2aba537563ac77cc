package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
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
	url    string // without a path
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
	r := &receiver{url: "http://" + h.Addr().String(), syslog: s, conns: map[net.Conn]bool{}}
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

// dialect is a format of output: where it is posted to, how it is counted, and
// what is answered.
type dialect struct {
	format string // as the agent's configuration names it; "" = its default
	path   string
	mark   string // stands so often in the body,
	times  int64  // for each record
	answer string
}

// ingest is where plain NDJSON goes.
const ingest = "/ingest"

var dialects = [...]dialect{
	{path: ingest, mark: "\n", times: 1},
	{format: "splunk-hec", path: "/services/collector/event", mark: "\n", times: 1, answer: `{"text":"Success","code":0}`},
	{format: "elastic-bulk", path: "/_bulk", mark: "\n", times: 2, answer: `{"took":1,"errors":false,"items":[]}`},
	{format: "otlp", path: "/v1/logs", mark: "log.record.uid", times: 1},
}

var (
	windows = sync.Pool{New: func() any { return new([64 << 10]byte) }}
	gunzips = sync.Pool{New: func() any { return new(gzip.Reader) }}
)

// ServeHTTP takes one POST.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	i := slices.IndexFunc(dialects[:], func(d dialect) bool { return d.path == req.URL.Path })
	if i < 0 {
		http.NotFound(w, req)
		return
	}
	says := &dialects[i]
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
	var marks, size int64
	mark := []byte(says.mark)
	kept := 0 // of the window before: a mark may begin there
	for {
		n, err := body.Read(buf[kept:])
		marks += int64(bytes.Count(buf[:kept+n], mark))
		size += int64(n)
		from := max(0, kept+n-len(mark)+1)
		kept = copy(buf[:], buf[from:kept+n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	r.records.Add(marks / says.times)
	r.bytes.Add(size)
	_, _ = io.WriteString(w, says.answer) // who does not get it sends again, and the count is wrong
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
