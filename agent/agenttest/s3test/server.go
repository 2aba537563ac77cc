// Package s3test is an S3 server inside the process, good enough for the real
// AWS SDK: ListObjectsV2, GetObject, HeadObject and HeadBucket, path style and
// virtual host style, with SigV4 headers looked at. It counts what it is asked
// and fails on demand. It is meant for tests and benchmarks, holds everything
// in memory, and takes millions of keys.
//
// It does not verify signatures, and knows no versions, policies or writes
// over HTTP.
package s3test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The operations, as Count and Inject name them.
const (
	ListObjectsV2 = "ListObjectsV2"
	GetObject     = "GetObject"
	HeadObject    = "HeadObject"
	HeadBucket    = "HeadBucket"
)

// Skewed is the error code of a request that was signed at a wrong time; Count
// knows it, too.
const Skewed = "RequestTimeTooSkewed"

// Config says what a Server insists on. The zero value accepts every request
// that is signed at all.
type Config struct {
	// AccessKey is the only access key accepted; "" = any.
	AccessKey string
	// Region is where the server is: requests signed for another region are
	// refused, and answers name it (x-amz-bucket-region). "" = anywhere,
	// and answers name none.
	Region string
	// Now is the server's clock: its Date header, and when objects are put.
	// nil = time.Now.
	Now func() time.Time
	// MaxSkew is how far the time that a request was signed at may be from the
	// server's; a request further off is refused with RequestTimeTooSkewed.
	// S3's is 15 minutes. 0 = the time is not looked at.
	MaxSkew time.Duration
}

// Server is the S3 server. It is an http.Handler. Safe for concurrent use.
type Server struct {
	cfg Config

	mu      sync.Mutex
	key     string // the only access key accepted; "" = any
	buckets map[string]*bucket
	counts  map[string]int
	inject  func(op, bucket, key string, n int) Fault

	requests atomic.Int64 // for request ids

	srv      *http.Server
	addr     string
	done     chan struct{} // closed by Close: ends stalls and delays
	stop     sync.Once
	served   sync.WaitGroup
	closeErr error
}

// New returns a server that listens nowhere: serve it with net/http or
// httptest. Close it, so that stalled answers end.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{
		cfg:     cfg,
		key:     cfg.AccessKey,
		buckets: map[string]*bucket{},
		counts:  map[string]int{},
		done:    make(chan struct{}),
	}
}

// Start returns a server that listens on a free port of the loopback address.
// Close ends it.
func Start(cfg Config) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the S3 test server: %w", err)
	}
	s := New(cfg)
	s.addr = l.Addr().String()
	s.srv = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	s.served.Go(func() { _ = s.srv.Serve(l) })
	return s, nil
}

// URL returns where a started server listens: http://127.0.0.1:<port>.
func (s *Server) URL() string { return "http://" + s.addr }

// Close ends stalled and delayed answers and, for a started server, the
// listener and all connections. It may be called more than once.
func (s *Server) Close() error {
	s.stop.Do(func() {
		close(s.done)
		if s.srv != nil {
			s.closeErr = s.srv.Close()
			s.served.Wait()
		}
	})
	return s.closeErr
}

// Rotate makes another access key the only one accepted; "" = any.
func (s *Server) Rotate(accessKey string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = accessKey
}

// Count returns how often an operation was asked for, failed ones included, or
// how often a request was refused as Skewed.
func (s *Server) Count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[op]
}

// ResetCounts starts all counts again from 0; the n of Inject with them.
func (s *Server) ResetCounts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.counts)
}

// Inject sets what decides on faults; nil = none. It is called for each
// request that names an existing bucket and is signed well; key is the prefix
// for ListObjectsV2 and "" for HeadBucket, and n counts the requests of this
// operation from 1. It may be called from several goroutines at once.
func (s *Server) Inject(f func(op, bucket, key string, n int) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inject = f
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, key := s.target(r)
	op := operation(r, key)

	s.mu.Lock()
	s.counts[op]++
	n, inject, b := s.counts[op], s.inject, s.buckets[name]
	s.mu.Unlock()

	head := r.Method == http.MethodHead
	if e := s.authorize(r); e != nil {
		if e.code == Skewed {
			s.mu.Lock()
			s.counts[Skewed]++
			s.mu.Unlock()
		}
		s.send(w, r, e.reply(head), Fault{})
		return
	}
	switch {
	case b == nil:
		s.send(w, r, (&apiError{404, "NoSuchBucket", "The specified bucket does not exist", ""}).reply(head), Fault{})
		return
	case op == "":
		s.send(w, r, (&apiError{501, "NotImplemented", "This server can't do that", ""}).reply(head), Fault{})
		return
	}

	var fault Fault
	if inject != nil {
		about := key
		if op == ListObjectsV2 {
			about = r.URL.Query().Get("prefix")
		}
		fault = inject(op, name, about, n)
	}
	if !s.wait(r, fault.Delay) {
		return
	}
	if fault.Kind == Answer || fault.Kind == Raw {
		s.send(w, r, fault.reply(head), Fault{})
		return
	}

	var out reply
	switch op {
	case ListObjectsV2:
		out = b.list(name, r.URL.Query(), r.Header, fault)
	case GetObject, HeadObject:
		out = b.get(key, r.Header)
	case HeadBucket:
		out = reply{status: http.StatusOK, header: http.Header{}}
	}
	s.send(w, r, out, fault)
}

// target returns the bucket and the key of a request. Virtual host style is
// recognised by a first label that is a bucket.
func (s *Server) target(r *http.Request) (bucket, key string) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if net.ParseIP(host) == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for name := range s.buckets {
			if strings.HasPrefix(host, name+".") {
				return name, path
			}
		}
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

// operation returns which operation a request asks for, "" for one that this
// server does not know.
func operation(r *http.Request, key string) string {
	switch {
	case r.Method == http.MethodHead && key == "":
		return HeadBucket
	case r.Method == http.MethodHead:
		return HeadObject
	case r.Method == http.MethodGet && key != "":
		return GetObject
	case r.Method == http.MethodGet && r.URL.Query().Get("list-type") == "2":
		return ListObjectsV2
	}
	return ""
}

// authorize looks at the Authorization header as SigV4 has it. It can't tell a
// wrong secret from the right one.
func (s *Server) authorize(r *http.Request) *apiError {
	header := r.Header.Get("Authorization")
	if header == "" {
		return &apiError{403, "AccessDenied", "Access Denied", ""}
	}
	malformed := func(what string) *apiError {
		return &apiError{400, "AuthorizationHeaderMalformed", "The authorization header is malformed; " + what, ""}
	}
	rest, ok := strings.CutPrefix(header, "AWS4-HMAC-SHA256 ")
	if !ok {
		return malformed("the algorithm is not AWS4-HMAC-SHA256")
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	signed := strings.Split(fields["SignedHeaders"], ";")
	date := r.Header.Get("X-Amz-Date")
	s.mu.Lock()
	key := s.key
	s.mu.Unlock()
	switch {
	case len(scope) != 5 || scope[0] == "" || scope[3] != "s3" || scope[4] != "aws4_request":
		return malformed("the credential is not <key>/<date>/<region>/s3/aws4_request")
	case !hexOf(fields["Signature"], 64):
		return malformed("the signature is not 64 hexadecimal digits")
	case len(date) != len("20060102T150405Z") || !strings.HasPrefix(date, scope[1]):
		return malformed("the date of the credential is not that of the request")
	case !has(signed, "host") || !has(signed, "x-amz-date") || r.Header.Get("X-Amz-Content-Sha256") == "":
		return malformed("host, x-amz-date and x-amz-content-sha256 must be signed")
	case s.skewed(date):
		return &apiError{403, Skewed, "The difference between the request time and the current time is too large.", ""}
	case key != "" && scope[0] != key:
		return &apiError{403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", ""}
	case s.cfg.Region != "" && scope[2] != s.cfg.Region:
		e := malformed(fmt.Sprintf("the region '%s' is wrong; expecting '%s'", scope[2], s.cfg.Region))
		e.region = s.cfg.Region
		return e
	}
	return nil
}

// skewed reports whether a request was signed at a time too far off.
func (s *Server) skewed(date string) bool {
	if s.cfg.MaxSkew == 0 {
		return false
	}
	at, err := time.Parse("20060102T150405Z", date)
	return err != nil || s.cfg.Now().Sub(at).Abs() > s.cfg.MaxSkew
}

func has(list []string, want string) bool {
	for _, x := range list {
		if x == want {
			return true
		}
	}
	return false
}

func hexOf(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// wait waits for d, and reports false if the request or the server ended first.
func (s *Server) wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

// reply is an answer before a fault has been at it.
type reply struct {
	status int
	header http.Header
	body   []byte
	// size is the Content-Length of an answer to HEAD, whose body is not sent.
	size int64
}

// send writes an answer, as the fault has it.
func (s *Server) send(w http.ResponseWriter, r *http.Request, out reply, fault Fault) {
	h := w.Header()
	h.Set("Date", s.cfg.Now().UTC().Format(http.TimeFormat))
	h.Set("Server", "AmazonS3")
	h.Set("X-Amz-Request-Id", fmt.Sprintf("%016X", s.requests.Add(1)))
	if s.cfg.Region != "" {
		h.Set("X-Amz-Bucket-Region", s.cfg.Region)
	}
	for name, values := range out.header {
		h[name] = values
	}
	for name, value := range fault.Header {
		h.Set(name, value)
	}
	if fault.Kind == ResetBefore {
		reset(w)
		return
	}

	body, declared := out.body, int64(len(out.body))
	if r.Method == http.MethodHead {
		declared = out.size
	}
	n := max(0, min(fault.N, int64(len(body))))
	switch fault.Kind {
	case Cut, ResetAfter, Stall:
		body = body[:n]
	case Short:
		body, declared = body[:n], n
	case Flip:
		if n < int64(len(body)) {
			body = append([]byte(nil), body...)
			body[n] ^= 0x01
		}
	}
	h.Set("Content-Length", strconv.FormatInt(declared, 10))
	w.WriteHeader(out.status)
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body)

	switch fault.Kind {
	case Cut:
		flush(w)
		panic(http.ErrAbortHandler) // closes the connection, as fewer bytes than declared would
	case ResetAfter:
		flush(w)
		reset(w)
	case Stall:
		flush(w)
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
		panic(http.ErrAbortHandler)
	}
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// reset ends the connection with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// urlEncode encodes a key as S3 does for encoding-type=url: a space is a plus
// sign, and a slash is a slash.
func urlEncode(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%2F", "/") }
