package s3source

import (
	"context"
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// newHTTPClient returns the client that everything of a source goes through:
// S3, and the services that its credentials come from.
func newHTTPClient(cfg *Config) (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if fips140.Enabled() {
		// Go's first choice, X25519, is refused under GODEBUG=fips140=only.
		conf.CurvePreferences = []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521}
	}
	if cfg.CAFile != "" {
		pool, err := trust(cfg.CAFile)
		if err != nil {
			return nil, &fault.Error{
				Kind: fault.Misconfigured, Op: "reading ca_file", Err: err,
				Hint: "ca_file must be a readable file of certificates in PEM",
			}
		}
		conf.RootCAs = pool
	}
	dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 30 * time.Second}
	base := &http.Transport{
		Proxy:                  proxyFunc(cfg.Proxy),
		DialContext:            dialer.DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    cfg.ConnectTimeout,
		ResponseHeaderTimeout:  cfg.HeaderTimeout,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           cfg.MaxConns,
		MaxIdleConnsPerHost:    cfg.MaxConns,
		MaxResponseHeaderBytes: 256 << 10,
		// What is stored is what is wanted: the objects are gzip themselves.
		DisableCompression: true,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return &proxyError{status: resp.StatusCode}
			}
			return nil
		},
	}
	return &http.Client{
		Transport: &stallTransport{base: base, after: cfg.StallTimeout},
		// A redirect would carry a signed request elsewhere. S3's own
		// redirects mean another region, and are handled as such.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// trust returns the system's certificates with those of a file.
func trust(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", strconv.Quote(file))
	}
	return pool, nil
}

// proxyFunc says which proxy a request takes.
func proxyFunc(proxy string) func(*http.Request) (*url.URL, error) {
	choose := http.ProxyFromEnvironment
	if u, err := url.Parse(proxy); err == nil && proxy != "" {
		choose = http.ProxyURL(u)
	}
	return func(r *http.Request) (*url.URL, error) {
		host := r.URL.Hostname()
		ip := net.ParseIP(host)
		// 169.254.169.254 and 169.254.170.2 answer for this very machine.
		if host == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast()) {
			return nil, nil
		}
		return choose(r)
	}
}

// proxyError is a proxy's refusal to connect.
type proxyError struct{ status int }

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy refuses to connect (HTTP %d %s)", e.status, http.StatusText(e.status))
}

// stallError is an answer of which nothing came for too long.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string { return "stalled for " + e.after.String() }

var errStalled = errors.New("stalled")

// stallTransport ends answers whose body stalls, whoever reads them: a page of
// a listing inside the SDK, an object in the agent's hands.
type stallTransport struct {
	base  *http.Transport
	after time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *stallTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	resp, err := t.base.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &stallBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, after: t.after}
	return resp, nil
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (t *stallTransport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// stallBody gives each Read so long. The time that its reader takes between
// two reads does not count.
type stallBody struct {
	io.ReadCloser
	ctx    context.Context // the request's; its end ends a blocked Read
	cancel context.CancelCauseFunc
	after  time.Duration
	timer  *time.Timer
}

// Read implements io.Reader.
func (b *stallBody) Read(p []byte) (int, error) {
	if b.timer == nil {
		b.timer = time.AfterFunc(b.after, func() { b.cancel(errStalled) })
	} else {
		b.timer.Reset(b.after)
	}
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), errStalled) {
		err = &stallError{after: b.after}
	}
	return n, err
}

// Close implements io.Closer.
func (b *stallBody) Close() error {
	if b.timer != nil {
		b.timer.Stop()
	}
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
