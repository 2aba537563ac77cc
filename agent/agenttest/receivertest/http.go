package receivertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
)

// HTTPConfig says how an HTTP receiver behaves. The zero value takes all over
// plain http.
type HTTPConfig struct {
	// Listen is the address; "" = a free port of 127.0.0.1. A receiver that
	// comes back where another was names that one's address.
	Listen string
	// CA makes it https, with a certificate for localhost and 127.0.0.1.
	CA *CA
	// Wire is given the port and returns what connections come from; nil = the
	// port itself.
	Wire func(net.Listener) net.Listener
	// RequireClient asks for a client certificate of the CA.
	RequireClient bool
	// Take is given each record that the receiver has accepted, in the order of
	// the body. It is called from many goroutines; raw is its to keep. nil = none.
	Take func(raw []byte)
	// Answer decides on each request before its records are taken; nil = 200.
	// It is called from many goroutines.
	Answer func(*Request) Answer
}

// Request is one POST, read whole and unpacked.
type Request struct {
	Number  int // from 1, in the order in which bodies were complete
	Path    string
	Header  http.Header
	Records [][]byte
	Bytes   int // of the body, as it came
}

// Answer is what a receiver does about a request.
type Answer struct {
	Status int // 0 = 200; records are taken with 2xx only
	Header http.Header
	Body   string
	// Delay passes before the records are taken and the answer is given. A
	// client that leaves meanwhile has delivered nothing.
	Delay time.Duration
	// Lose breaks the connection instead of answering, after the records were
	// taken if Status says so: the answer that is lost.
	Lose bool
}

// HTTP is a receiver of NDJSON (Content-Type application/x-ndjson) and JSON
// arrays (application/json), gzip or not.
type HTTP struct {
	cfg      HTTPConfig
	url      string
	server   *http.Server
	closed   context.Context
	close    context.CancelFunc
	wg       sync.WaitGroup
	requests atomic.Int64
	records  atomic.Int64
	bytes    atomic.Int64
}

// NewHTTP starts a receiver.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	ln, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	h := &HTTP{cfg: cfg, url: "http://" + ln.Addr().String()}
	if cfg.Wire != nil {
		ln = cfg.Wire(ln)
	}
	h.closed, h.close = context.WithCancel(context.Background())
	h.server = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // refused handshakes are the tests' own doing
	}
	serve := func() error { return h.server.Serve(ln) }
	if cfg.CA != nil {
		tc, err := cfg.CA.serverTLS(cfg.RequireClient)
		if err != nil {
			_ = ln.Close()
			h.close()
			return nil, err
		}
		h.url = "https://" + ln.Addr().String()
		h.server.TLSConfig = tc
		serve = func() error { return h.server.ServeTLS(ln, "", "") }
	}
	h.wg.Go(func() { _ = serve() }) // http.ErrServerClosed, once Close was called
	return h, nil
}

func listen(addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("opening a receiver's port: %w", err)
	}
	return ln, nil
}

// URL is where to post to. Its path is free to choose.
func (h *HTTP) URL() string { return h.url }

// Addr is the receiver's host and port.
func (h *HTTP) Addr() string {
	_, addr, _ := strings.Cut(h.url, "://")
	return addr
}

// Requests is how many bodies came whole, accepted or not.
func (h *HTTP) Requests() int { return int(h.requests.Load()) }

// Records is how many records were taken.
func (h *HTTP) Records() int { return int(h.records.Load()) }

// Bytes is how many bytes of bodies came, as they came.
func (h *HTTP) Bytes() int64 { return h.bytes.Load() }

// Close ends the receiver at once and breaks what is open.
func (h *HTTP) Close() error {
	h.close()
	err := h.server.Close()
	h.wg.Wait()
	return err
}

// ServeHTTP takes one POST.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return
	}
	r, err := h.read(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var a Answer
	if h.cfg.Answer != nil {
		a = h.cfg.Answer(r)
	}
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	if a.Delay > 0 {
		timer := time.NewTimer(a.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
			return
		case <-h.closed.Done():
			panic(http.ErrAbortHandler)
		}
	}
	if a.Status/100 == 2 {
		h.records.Add(int64(len(r.Records)))
		if h.cfg.Take != nil {
			for _, raw := range r.Records {
				h.cfg.Take(raw)
			}
		}
	}
	if a.Lose {
		panic(http.ErrAbortHandler) // net/http breaks the connection and says nothing
	}
	for k, v := range a.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Body)
}

// read reads a body whole and splits it.
func (h *HTTP) read(req *http.Request) (*Request, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	h.bytes.Add(int64(len(body)))
	r := &Request{Number: int(h.requests.Add(1)), Path: req.URL.Path, Header: req.Header, Bytes: len(body)}
	switch enc := req.Header.Get("Content-Encoding"); enc {
	case "":
	case "gzip":
		zr, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("opening the gzip body: %w", err)
		}
		if body, err = io.ReadAll(zr); err != nil {
			return nil, fmt.Errorf("inflating the body: %w", err)
		}
	default:
		return nil, fmt.Errorf("unknown Content-Encoding %q", enc)
	}
	kind, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";")
	switch kind {
	case "application/x-ndjson":
		if len(body) == 0 || body[len(body)-1] != '\n' {
			return nil, errors.New("the body does not end with a line break")
		}
		r.Records = bytes.Split(body[:len(body)-1], []byte("\n"))
	case "application/json":
		var all []json.RawMessage
		if err := json.Unmarshal(body, &all); err != nil {
			return nil, fmt.Errorf("reading the array: %w", err)
		}
		for _, raw := range all {
			r.Records = append(r.Records, raw)
		}
	default:
		return nil, fmt.Errorf("unknown Content-Type %q", kind)
	}
	return r, nil
}
