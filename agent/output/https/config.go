package https

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
)

// Format is how a batch is laid out in a request's body.
type Format string

// The formats.
const (
	NDJSON    Format = "ndjson"     // each record, a line feed after each, also after the last
	JSONArray Format = "json-array" // the records in brackets, commas between
)

// Config describes an Output. It holds secrets: it is never printed, and its
// String says the receiver's host alone.
type Config struct {
	URL    string // http or https
	Format Format // "" = NDJSON

	Token              string            // bearer; "" = none
	Username, Password string            // basic authentication, where Username isn't ""
	Headers            map[string]string // sent with each request

	Compression string        // "gzip" or "none"; "" = gzip
	Timeout     time.Duration // of one attempt, from connecting to the status line; 0 = 30 s
	Connections int           // at once; 0 = 4

	TLS tlsconf.Config
	// Proxy is the URL of an HTTP or SOCKS5 proxy; "" = as HTTPS_PROXY,
	// HTTP_PROXY and NO_PROXY say. A receiver on this machine is never asked
	// for through a proxy.
	Proxy string

	Version string // of trailpoll, for User-Agent
}

// String names the receiver's host and nothing that could be a secret.
func (c Config) String() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "https output"
	}
	return "https output to " + u.Host
}

// GoString is String.
func (c Config) GoString() string { return c.String() }

// reserved are the headers that a configuration can't set, each with the
// reason. They are compared in canonical form.
var reserved = map[string]string{
	"Connection":        "the connection is ours to manage",
	"Content-Encoding":  "use compression",
	"Content-Length":    "it follows from the batch",
	"Transfer-Encoding": "it follows from the batch",
	"Trailer":           "there is none",
	"Upgrade":           "the connection is ours to manage",
	// With one of these net/http takes a POST for one that may be repeated, and
	// a receiver takes all requests that carry the same for one.
	"Idempotency-Key":   "it would be the same with each batch",
	"X-Idempotency-Key": "it would be the same with each batch",
}

func (c Config) output() (*Output, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, errors.New("reading the URL: it is not one") // err would quote it, with what it holds
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("reading the URL: scheme %.20q is neither https nor http", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("reading the URL: it names no host")
	case u.User != nil:
		return nil, errors.New("reading the URL: it holds a user name or password; use username and password")
	case c.Timeout < 0 || c.Connections < 0:
		return nil, errors.New("timeout and connections can't be negative")
	}
	u.Fragment = ""

	o := &Output{
		url:     u,
		op:      "sending to " + u.Scheme + "://" + u.Host,
		format:  c.Format,
		timeout: c.Timeout,
		conns:   c.Connections,
		secrets: newSecrets(c, u),
	}
	if o.timeout == 0 {
		o.timeout = 30 * time.Second
	}
	if o.conns == 0 {
		o.conns = 4
	}
	contentType := "application/x-ndjson"
	switch c.Format {
	case "":
		o.format = NDJSON
	case NDJSON:
	case JSONArray:
		contentType = "application/json"
	default:
		return nil, fmt.Errorf("format %q is neither ndjson nor json-array", c.Format)
	}
	if o.header, o.host, err = c.headers(contentType); err != nil {
		return nil, err
	}
	switch c.Compression {
	case "", "gzip":
		o.header.Set("Content-Encoding", "gzip")
		o.bodies = newBodies(o.conns, true)
	case "none":
		o.bodies = newBodies(o.conns, false)
	default:
		return nil, fmt.Errorf("compression %q is neither gzip nor none", c.Compression)
	}
	if o.tls, err = c.TLS.Load(); err != nil {
		return nil, err
	}
	if o.transport, err = c.transport(o.tls.Conf, o.conns, o.timeout); err != nil {
		return nil, err
	}
	return o, nil
}

// headers returns what is sent with each request. Content-Type, Accept,
// User-Agent and Host may be set by the configuration.
func (c Config) headers(contentType string) (h http.Header, host string, err error) {
	h = http.Header{}
	h.Set("Content-Type", contentType)
	h.Set("User-Agent", "trailpoll/"+strings.TrimSpace(c.Version))
	h.Set("Accept", "*/*")
	// Without this the transport would ask for gzip and inflate the answer.
	h.Set("Accept-Encoding", "identity")
	for name, value := range c.Headers {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !validName(name):
			return nil, "", fmt.Errorf("header %.40q is not a name that a header can have", name)
		case !validValue(value):
			return nil, "", fmt.Errorf("the value of header %s holds a line break or another control character", canonical)
		case reserved[canonical] != "":
			return nil, "", fmt.Errorf("header %s can't be set: %s", canonical, reserved[canonical])
		case canonical == "Host":
			host = value
			continue
		case canonical == "Authorization" && (c.Token != "" || c.Username != ""):
			return nil, "", errors.New("header Authorization is set twice: leave it or the token or username out")
		}
		h[canonical] = []string{value}
	}
	switch {
	case c.Token != "" && c.Username != "":
		return nil, "", errors.New("token and username exclude each other")
	case c.Token != "":
		if !validValue(c.Token) {
			return nil, "", errors.New("the token holds a line break or another control character: check the file that it is read from")
		}
		h.Set("Authorization", "Bearer "+c.Token)
	case c.Username != "":
		if strings.Contains(c.Username, ":") { // RFC 7617 section 2
			return nil, "", errors.New("the username holds a colon, which basic authentication can't carry")
		}
		h.Set("Authorization", "Basic "+basic(c.Username, c.Password))
	}
	if !validValue(h.Get("User-Agent")) {
		return nil, "", errors.New("the version holds a control character")
	}
	return h, host, nil
}

func basic(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
}

func (c Config) transport(conf *tls.Config, conns int, timeout time.Duration) (*http.Transport, error) {
	proxy, err := c.proxy()
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                  proxy,
		OnProxyConnectResponse: refusedByProxy,
		TLSClientConfig:        conf,
		ForceAttemptHTTP2:      true, // a TLSClientConfig of our own turns it off otherwise
		MaxConnsPerHost:        conns,
		MaxIdleConns:           conns,
		MaxIdleConnsPerHost:    conns,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    min(timeout, 15*time.Second),
		MaxResponseHeaderBytes: 256 << 10,
		// A dead HTTP/2 connection is found by pings, instead of by every batch
		// on it running into the timeout.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}, nil
}

func (c Config) proxy() (func(*http.Request) (*url.URL, error), error) {
	if c.Proxy == "" {
		return http.ProxyFromEnvironment, nil
	}
	u, err := url.Parse(c.Proxy)
	if err != nil || u.Hostname() == "" { // err would quote it, with the password that it may hold
		return nil, errors.New("reading the proxy's URL: it is not one like http://proxy.example.com:3128")
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, fmt.Errorf("reading the proxy's URL: scheme %.20q is none of http, https, socks5", u.Scheme)
	}
	return func(r *http.Request) (*url.URL, error) {
		if host := r.URL.Hostname(); host == "localhost" || net.ParseIP(host).IsLoopback() {
			return nil, nil
		}
		return u, nil
	}, nil
}

// validName reports whether s is a token (RFC 9110 section 5.6.2).
func validName(s string) bool {
	const chars = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return s != "" && strings.Trim(s, chars) == ""
}

// validValue reports whether s can be a header's value (RFC 9110 section 5.5):
// no control character but the tab.
func validValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// proxyAnswer is a proxy's refusal to connect us.
type proxyAnswer struct {
	status int
	header http.Header
}

func (e *proxyAnswer) Error() string { return "the proxy answered " + statusText(e.status) }

func refusedByProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyAnswer{resp.StatusCode, resp.Header}
}
