package s3source

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
)

// What happens to a body on its way.
func TestBodies(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 50_000)
	for _, tt := range []struct {
		name  string
		fault s3test.Fault
		n     int   // bytes that arrive; -1 = some
		want  error // in the chain; nil = none
		text  string
	}{
		{"whole", s3test.Fault{}, len(content), nil, ""},
		{"cut", s3test.Fault{Kind: s3test.Cut, N: 300_000}, 300_000, io.ErrUnexpectedEOF, "getting s3://acme-cloudtrail-logs/k: unexpected EOF"},
		{"cut at once", s3test.Fault{Kind: s3test.Cut}, 0, io.ErrUnexpectedEOF, "unexpected EOF"},
		{"reset", s3test.Fault{Kind: s3test.ResetAfter, N: 300_000}, -1, io.ErrUnexpectedEOF, "unexpected EOF"},
		{"stalled", s3test.Fault{Kind: s3test.Stall, N: 300_000}, 300_000, &stallError{50 * time.Millisecond}, "getting s3://acme-cloudtrail-logs/k: stalled for 50ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := server(t, s3test.Config{})
			etag := srv.Put(bucket, "k", content)
			srv.Inject(func(string, string, string, int) s3test.Fault { return tt.fault })
			s := at(t, srv.URL(), func(c *Config) { c.StallTimeout = 50 * time.Millisecond })
			b, err := s.Get(t.Context(), "k", etag)
			if err != nil {
				t.Fatal(err)
			}
			if b.Size != int64(len(content)) {
				t.Errorf("size %d", b.Size)
			}
			got, err := io.ReadAll(b)
			if tt.n >= 0 && len(got) != tt.n || !bytes.HasPrefix(content, got) {
				t.Errorf("%d bytes, want %d", len(got), tt.n)
			}
			_ = b.Close()
			if tt.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Kind != fault.Temporary || !strings.Contains(f.Error(), tt.text) {
				t.Errorf("%v", err)
			}
			if _, stall := tt.want.(*stallError); !stall && !errors.Is(err, tt.want) {
				t.Errorf("%v is no %v", err, tt.want)
			}
			if isContext(err) {
				t.Errorf("%v would be taken for the end of the agent", err)
			}
		})
	}
}

func TestBodyUnderContext(t *testing.T) {
	srv := server(t, s3test.Config{})
	srv.Put(bucket, "k", bytes.Repeat([]byte("x"), 1000))
	srv.Inject(func(string, string, string, int) s3test.Fault { return s3test.Fault{Kind: s3test.Stall, N: 10} })
	ctx, cancel := context.WithCancel(t.Context())
	b, err := at(t, srv.URL()).Get(ctx, "k", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = b.Close()
}

// A listing that stalls, or whose answer does not begin, ends by itself, and is
// not tried again within the call.
func TestListStalls(t *testing.T) {
	for name, f := range map[string]s3test.Fault{
		"stalled for 50ms": {Kind: s3test.Stall, N: 100},
		"timeout awaiting": {Delay: time.Hour},
	} {
		srv := server(t, s3test.Config{})
		srv.Inject(func(string, string, string, int) s3test.Fault { return f })
		s := at(t, srv.URL(), func(c *Config) { c.StallTimeout, c.HeaderTimeout = 50*time.Millisecond, 50*time.Millisecond })
		err := calls(t.Context(), s, "list")
		if fault.KindOf(err) != fault.Temporary || !strings.Contains(err.Error(), name) || isContext(err) || fault.HintOf(err) != "" {
			t.Errorf("%v, hint %q", err, fault.HintOf(err))
		}
		if n := srv.Count(s3test.ListObjectsV2); n != 1 {
			t.Errorf("asked %d times", n)
		}
	}
}

// blocking is a body whose reads block until its context ends, but for those
// that the test feeds.
type blocking struct {
	ctx  context.Context
	data chan byte
}

func (b *blocking) Read(p []byte) (int, error) {
	select {
	case p[0] = <-b.data:
		return 1, nil
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}
func (b *blocking) Close() error { return nil }

// The time between two bytes counts, not that between two reads.
func TestStallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		data := make(chan byte)
		b := &stallBody{ReadCloser: &blocking{ctx, data}, ctx: ctx, cancel: cancel, after: 30 * time.Second}
		p := make([]byte, 1)
		for range 5 {
			go func() { time.Sleep(29 * time.Second); data <- 'x' }()
			if n, err := b.Read(p); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			time.Sleep(time.Hour) // a reader that is in no hurry
		}
		begin := time.Now()
		_, err := b.Read(p)
		if _, ok := errors.AsType[*stallError](err); !ok || time.Since(begin) != 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTLS(t *testing.T) {
	srv := s3test.New(s3test.Config{AccessKey: testKey})
	srv.Put(bucket, "k", []byte("x"))
	front := httptest.NewUnstartedServer(srv)
	front.Config.ErrorLog = quiet()
	front.StartTLS()
	t.Cleanup(front.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})

	s := at(t, front.URL)
	if err := calls(t.Context(), s, "list"); fault.KindOf(err) != fault.Unreachable || !strings.Contains(fault.HintOf(err), "ca_file") {
		t.Errorf("without its certificate: %v, hint %q", err, fault.HintOf(err))
	}

	s = at(t, front.URL, func(c *Config) { c.CAFile = ca })
	if err := calls(t.Context(), s, "list"); fault.KindOf(err) != fault.Misconfigured || !strings.HasPrefix(err.Error(), "reading ca_file: ") {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(ca, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := calls(t.Context(), s, "list"); fault.KindOf(err) != fault.Misconfigured {
		t.Errorf("with a bad file: %v", err)
	}
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := calls(t.Context(), s, "list"); err != nil {
		t.Errorf("with the file, at last: %v", err)
	}
}

// Requests go through the proxy, with the bucket in the host's name.
func TestProxy(t *testing.T) {
	srv := server(t, s3test.Config{})
	srv.Put(bucket, "k", []byte("x"))
	var hosts []string
	proxy := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts = append(hosts, r.Host)
		srv.ServeHTTP(w, r)
	}))
	s := at(t, "http://s3.invalid", func(c *Config) { c.Proxy, c.PathStyle = proxy, false })
	p, err := s.List(t.Context(), listing.Request{})
	if err != nil || len(p.Entries) != 1 || len(hosts) != 1 || hosts[0] != bucket+".s3.invalid" {
		t.Errorf("%+v, %v by %v", p, err, hosts)
	}

	refusing := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(407) }))
	s = at(t, "https://s3.invalid", func(c *Config) { c.Proxy = strings.Replace(refusing, "//", "//user:passw0rd@", 1) })
	err = calls(t.Context(), s, "list")
	if fault.KindOf(err) != fault.Unreachable || !strings.Contains(err.Error(), "HTTP 407") || !strings.Contains(fault.HintOf(err), "proxy") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	if strings.Contains(err.Error()+fault.HintOf(err), "passw0rd") {
		t.Errorf("the password is in %v", err)
	}
}

// This machine and the local link, where credentials come from, are reached
// without a proxy.
func TestProxyFunc(t *testing.T) {
	choose := proxyFunc("http://proxy.example.com:3128")
	for target, want := range map[string]bool{
		"https://b.s3.eu-west-1.amazonaws.com/": true, "http://10.0.0.1/": true, "http://169.254.169.254/latest": false,
		"http://169.254.170.2/v2": false, "http://127.0.0.1:7070/": false, "http://localhost/": false, "http://[::1]/": false, "http://[fe80::1]/": false,
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := choose(&http.Request{URL: u}); err != nil || (p != nil) != want {
			t.Errorf("%s: %v, %v", target, p, err)
		}
	}
}

// A redirect is never followed: what is signed goes to nobody else.
func TestInvariant10_RedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		other := listenHandler(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Errorf("%d was followed", status) }))
		front := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other+r.URL.Path, status)
		}))
		s := at(t, front)
		for _, op := range []string{"list", "get", "head"} {
			if calls(t.Context(), s, op) == nil {
				t.Errorf("%s with %d went well", op, status)
			}
		}
	}
}

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
