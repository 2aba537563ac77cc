package tlsconf_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
)

func TestExplain(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	read := func(err error) error { return &net.OpError{Op: "read", Net: "tcp", Err: err} }
	for _, c := range []struct {
		name string
		err  error
		kind fault.Kind
		hint string // in the hint; "" = there is none
	}{
		{"cancelled", dial(context.Canceled), fault.Temporary, ""},
		{"refused", dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), fault.Held, "nothing listens at h:1"},
		{"no route", dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), fault.Held, "h:1 can't be reached"},
		{"unknown errno while dialing", dial(syscall.Errno(9999)), fault.Held, "can't be reached"},
		{"dial timeout", dial(os.ErrDeadlineExceeded), fault.Temporary, "firewall"},
		{"dial reset", dial(os.NewSyscallError("connect", syscall.ECONNRESET)), fault.Temporary, ""},
		{"no descriptors", dial(os.NewSyscallError("socket", syscall.EMFILE)), fault.Temporary, "file descriptors"},
		{"no name", dial(&net.DNSError{Name: "siem\n.example", IsNotFound: true}), fault.Held, `"siem\n.example"`},
		{"reset", read(os.NewSyscallError("read", syscall.ECONNRESET)), fault.Temporary, ""},
		{"end", io.EOF, fault.Temporary, ""},
		{"timeout", read(os.ErrDeadlineExceeded), fault.Temporary, ""},
		{"alert", &net.OpError{Op: "remote error", Err: tls.AlertError(42)}, fault.Held, "tls.cert_file"},
		{"no TLS", tls.RecordHeaderError{Msg: "x"}, fault.Held, "does not speak TLS"},
		{"anything", errors.New("x"), fault.Temporary, ""},
	} {
		kind, hint := (*tlsconf.Client)(nil).Explain(c.err, "h:1")
		if kind != c.kind || !strings.Contains(hint, c.hint) || (hint == "") != (c.hint == "") {
			t.Errorf("%s: %v, %q", c.name, kind, hint)
		}
	}
}

// A certificate's dates and names are said, on one line, whoever made it.
func TestExplainCertificate(t *testing.T) {
	ca := outputtest.NewAuthority(t, "CA\nforged line")
	certFile, keyFile := ca.Issue(t, time.Now().Add(-time.Minute), "siem.example.com")
	client, err := tlsconf.Config{CAFile: ca.File, ServerName: "siem.example.com", MinVersion: "1.3"}.Load()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := ln.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	_, err = tls.Dial("tcp", ln.Addr().String(), client.Conf)
	_ = ln.Close()
	<-done
	kind, hint := client.Explain(err, "siem.example.com:6514")
	if kind != fault.Held || !strings.Contains(hint, "has expired") || !strings.Contains(hint, `"siem.example.com"`) ||
		!strings.Contains(hint, cert.Leaf.NotAfter.UTC().Format(time.RFC3339)) || strings.Contains(hint, "\n") {
		t.Errorf("%v, %q: %v", kind, hint, err)
	}
}

func TestBadFiles(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]tlsconf.Config{
		"holds no PEM certificate": {CAFile: empty},
		"reading the trusted":      {CAFile: empty + ".not"},
		"both or not at all":       {KeyFile: empty},
		"reading our certificate":  {CertFile: empty, KeyFile: empty},
		"neither 1.2 nor 1.3":      {MinVersion: "1.0"},
	} {
		if _, err := c.Load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
}
