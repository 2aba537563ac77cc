package https

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
)

// Config describes an Output. It holds secrets: it is never printed, and its
// String says the receiver's host alone.
type Config struct {
	// URL is http or https. Without a path it is that which the format has
	// everywhere: /services/collector/event, /_bulk, /v1/logs.
	URL      string
	Format   Format   // "" = NDJSON
	Indexing Indexing // what some formats say about where a record goes
	// Render makes the form in which a record is sent; nil = as it is, without
	// a copy. Text says that what it makes is text and no JSON.
	Render Renderer
	Text   bool

	Token              string            // bearer; "" = none
	Username, Password string            // basic authentication, where Username isn't ""
	Headers            map[string]string // sent with each request
	OAuth2             OAuth2

	Compression string        // "gzip" or "none"; "" = gzip
	Timeout     time.Duration // of one attempt, from connecting to the status line; 0 = 30 s
	Connections int           // at once; 0 = 4

	TLS tlsconf.Config
	// Proxy is the URL of an HTTP or SOCKS5 proxy; "" = as HTTPS_PROXY and
	// HTTP_PROXY say. NO_PROXY counts in both cases, and a receiver on this
	// machine is never asked for through a proxy.
	Proxy string

	Version string // of trailpoll, for User-Agent
}

// Indexing is what some formats tell the receiver beside the records.
type Indexing struct {
	// Ack makes SplunkHEC wait until Splunk says that a batch is indexed.
	Ack bool
	// Index is where SplunkHEC and ElasticBulk put records; "" = where the token
	// or the URL says. ElasticBulk takes %Y, %m, %d and %H of the event's time.
	Index      string
	Sourcetype string            // of SplunkHEC; "" = the token's
	Fields     map[string]string // go with each record in SplunkHEC and OTLP
	Host       string            // of SplunkHEC; "" = this machine's name
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
	// Acknowledgements are told to their channel, once.
	"X-Splunk-Request-Channel": "each run has a channel of its own",
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
	layout, err := c.layout(u)
	if err != nil {
		return nil, err
	}

	o := &Output{
		url:     u,
		op:      "sending to " + u.Scheme + "://" + u.Host,
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
	o.form = newForm(layout, c.Render, c.Text, o.conns)
	if o.header, o.host, err = c.headers(layout.contentType()); err != nil {
		return nil, err
	}
	if c.Indexing.Ack {
		channel := newChannel()
		o.header.Set("X-Splunk-Request-Channel", channel)
		if o.acks, err = newAcks(u, channel); err != nil {
			return nil, err
		}
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
	if o.tokens, err = c.tokenSource(o.conns, o.timeout); err != nil {
		return nil, err
	}
	return o, nil
}

// layout returns the format's, and completes the URL.
func (c Config) layout(u *url.URL) (layout, error) {
	x := &c.Indexing
	switch {
	case x.Ack && c.Format != SplunkHEC:
		return nil, fmt.Errorf("format %q has no acknowledgements", c.Format)
	case x.Index != "" && c.Format != SplunkHEC && c.Format != ElasticBulk:
		return nil, fmt.Errorf("format %q has no index", c.Format)
	case len(x.Fields) > 0 && c.Format != SplunkHEC && c.Format != OTLP:
		return nil, fmt.Errorf("format %q has no fields", c.Format)
	}
	path := func(usual string) {
		if u.Path == "" || u.Path == "/" {
			u.Path, u.RawPath = usual, ""
		}
	}
	switch c.Format {
	case "", NDJSON:
		return ndjson(c.Text && c.Render != nil), nil
	case JSONArray:
		return jsonArray(), nil
	case SplunkHEC:
		path(hecCollector + "/event")
		host := x.Host
		if host == "" {
			host, _ = os.Hostname() // "" is as good: Splunk uses its own default
		}
		return splunk{host: host, index: x.Index, sourcetype: x.Sourcetype, fields: x.Fields, ack: x.Ack}, nil
	case ElasticBulk:
		if c.Text && c.Render != nil {
			return nil, errors.New("format elastic-bulk takes JSON objects and no text")
		}
		path("/_bulk")
		if x.Index == "" && u.Path == "/_bulk" {
			return nil, errors.New("format elastic-bulk needs an index, or one in the URL's path")
		}
		// All that is read of an answer, and a tenth of what it is otherwise.
		if !u.Query().Has("filter_path") {
			if u.RawQuery != "" {
				u.RawQuery += "&"
			}
			u.RawQuery += "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
		}
		index, err := newIndexName(x.Index)
		return elastic{index: index}, err
	case OTLP:
		path("/v1/logs")
		return otlp{fields: x.Fields, version: strings.TrimSpace(c.Version), now: time.Now}, nil
	}
	return nil, fmt.Errorf("format %q is none of ndjson, json-array, splunk-hec, elastic-bulk, otlp", c.Format)
}

// newChannel makes up the name of a HEC channel, a random UUID (RFC 9562
// section 5.4).
func newChannel() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
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
		case canonical == "Authorization" && (c.Token != "" || c.Username != "" || c.OAuth2.TokenURL != ""):
			return nil, "", errors.New("header Authorization is set twice: leave it or the token, username or oauth2 out")
		}
		h[canonical] = []string{value}
	}
	switch {
	case c.Token != "" && c.Username != "":
		return nil, "", errors.New("token and username exclude each other")
	case c.OAuth2.TokenURL != "" && (c.Token != "" || c.Username != ""):
		return nil, "", errors.New("oauth2 excludes token and username")
	case c.Token != "":
		if !validValue(c.Token) {
			return nil, "", errors.New("the token holds a line break or another control character: check the file that it is read from")
		}
		scheme := "Bearer "
		if c.Format == SplunkHEC {
			scheme = "Splunk "
		}
		h.Set("Authorization", scheme+c.Token)
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
