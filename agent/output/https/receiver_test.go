package https

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/trailpoll/trailpoll/agent/output/outputtest"
)

// receiver is an HTTP server with faults.
type receiver struct {
	outputtest.Inbox
	t    *testing.T
	addr string
	tls  *tls.Config // nil for plain http

	mu      sync.Mutex
	fault   outputtest.Fault
	server  *http.Server // nil while it refuses connections
	served  sync.WaitGroup
	healed  chan struct{}
	answer  func(http.ResponseWriter) // instead of taking the records, if set
	last    *http.Request
	content []byte // of the last request, inflated
}

func newReceiver(t *testing.T, conf *tls.Config) *receiver {
	r := &receiver{t: t, addr: "127.0.0.1:0", tls: conf, healed: make(chan struct{})}
	r.listen()
	t.Cleanup(func() {
		r.Fail(outputtest.Fault{})
		r.shut()
	})
	return r
}

func (r *receiver) listen() {
	ln, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Errorf("listening: %v", err)
		return
	}
	r.addr = ln.Addr().String()
	s := &http.Server{Handler: r, TLSConfig: r.tls}
	r.server = s
	r.served.Go(func() {
		if r.tls != nil {
			err = s.ServeTLS(ln, "", "")
		} else {
			err = s.Serve(ln)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			r.t.Errorf("serving: %v", err)
		}
	})
}

func (r *receiver) shut() {
	if r.server != nil {
		_ = r.server.Close() // tests only
		r.server = nil
	}
	r.served.Wait()
}

func (r *receiver) Fail(f outputtest.Fault) {
	r.mu.Lock()
	r.fault = f
	close(r.healed)
	r.healed = make(chan struct{})
	r.mu.Unlock()
	switch {
	case f.Mode == outputtest.Refuse:
		r.shut()
	case r.server == nil:
		r.listen()
	}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	f, healed, answer := r.fault, r.healed, r.answer
	r.last = req
	r.mu.Unlock()
	switch {
	case answer != nil:
		answer(w)
		return
	case f.Mode == outputtest.Status:
		w.WriteHeader(f.Status)
		return
	case f.Mode == outputtest.ResetBefore:
		panic(http.ErrAbortHandler)
	}
	content, err := io.ReadAll(req.Body)
	if err != nil {
		return // the client gave up
	}
	if int64(len(content)) != req.ContentLength {
		r.t.Errorf("Content-Length %d, body %d", req.ContentLength, len(content))
	}
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(content))
		if err == nil {
			content, err = io.ReadAll(z)
		}
		if err != nil {
			r.t.Errorf("inflating: %v", err)
		}
	}
	records, err := parse(req.Header.Get("Content-Type"), content)
	if err != nil {
		r.t.Errorf("parsing the body: %v", err)
	}
	r.mu.Lock()
	r.content = content
	r.mu.Unlock()
	r.Put(records...)
	switch f.Mode {
	case outputtest.ResetAfter:
		panic(http.ErrAbortHandler)
	case outputtest.Hang:
		select {
		case <-healed:
			panic(http.ErrAbortHandler)
		case <-req.Context().Done():
		}
	}
}

// parse takes a body apart without any of the code under test.
func parse(contentType string, content []byte) ([][]byte, error) {
	if contentType == "application/x-ndjson" {
		if !bytes.HasSuffix(content, []byte("\n")) {
			return nil, errors.New("no line feed at the end")
		}
		return bytes.Split(content[:len(content)-1], []byte("\n")), nil
	}
	if content[0] != '[' || content[len(content)-1] != ']' {
		return nil, errors.New("no array")
	}
	// A RawMessage holds the element's bytes as they are.
	var list []json.RawMessage
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, err
	}
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out, nil
}
