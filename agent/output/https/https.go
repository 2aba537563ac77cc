// Package https sends batches to a receiver over HTTP, one POST a batch, as
// NDJSON or as a JSON array. It makes one attempt a batch; retrying, splitting
// and parking are the agent's, who is told by the kind of the error (answer.go
// has the table).
//
// The receiver has acknowledged a batch when its status line is 2xx. Redirects
// are never followed: they would carry token and records elsewhere.
package https

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/record"
)

// drained is how much of an answer is read so that its connection can be used
// again, in bytes. A longer answer costs the connection.
const drained = 64 << 10

// Output sends batches to one URL. It is safe for concurrent use by as many
// goroutines as it has connections.
type Output struct {
	url       *url.URL
	op        string // names the receiver in errors, without path or query: those may hold a token
	header    http.Header
	host      string // the Host header, "" = from the URL
	format    Format
	timeout   time.Duration
	conns     int
	tls       *tlsconf.Client
	transport *http.Transport
	bodies    bodies
	secrets   secrets
	closed    atomic.Bool
}

// New returns the output that conf describes. It opens no connection. Whether
// plain http is allowed is for whoever reads the configuration to say.
func New(conf Config) (*Output, error) {
	o, err := conf.output()
	if err != nil {
		return nil, fmt.Errorf("setting up an https output: %w", err)
	}
	return o, nil
}

// Connections is how many goroutines may call Send at once.
func (o *Output) Connections() int { return o.conns }

// Close closes the idle connections. Calls of Send should have returned; it may
// be called more than once.
func (o *Output) Close() error {
	o.closed.Store(true)
	o.transport.CloseIdleConnections()
	return nil
}

// Send posts the batch once. It returns nil when the receiver answered 2xx: what
// the answer's body says, or whether it arrived whole, doesn't count. Records
// that hold a line break are left out and named in the error (fault.Refused).
// The batch's memory isn't used after Send returned.
func (o *Output) Send(ctx context.Context, b *record.Batch) error {
	if o.closed.Load() {
		return &fault.Error{Op: o.op, Err: errors.New("the output is closed")}
	}
	if err := ctx.Err(); err != nil {
		return &fault.Error{Op: o.op, Err: err}
	}
	body, refused, err := o.bodies.encode(o.format, b)
	if err != nil {
		return &fault.Error{Op: o.op, Err: err}
	}
	if len(refused) < len(b.Records) {
		if err := o.post(ctx, body, b); err != nil {
			return err
		}
	} else {
		body.release()
	}
	if len(refused) > 0 {
		return &fault.Error{Kind: fault.Refused, Op: o.op, Err: errLineBreak, Records: refused}
	}
	return nil
}

// post makes the request and releases body.
func (o *Output) post(ctx context.Context, body *body, b *record.Batch) error {
	defer body.release()
	attempt, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer cancel()
	// The transport is called without http.Client: nothing here wants cookies
	// or redirects, and a Client puts the whole URL into its errors.
	//
	// GetBody lets the transport send again by itself where it knows that the
	// receiver saw nothing of the request: an idle connection that turns out to
	// be closed before the first byte, or an HTTP/2 stream refused. A POST is
	// not repeated in any other case (net/http, persistConn.shouldRetryRequest).
	req := (&http.Request{
		Method:        http.MethodPost,
		URL:           o.url,
		Host:          o.host,
		Header:        o.header.Clone(),
		Body:          body.reader(),
		GetBody:       func() (io.ReadCloser, error) { return body.reader(), nil },
		ContentLength: int64(body.buf.Len()),
	}).WithContext(attempt)
	resp, err := o.transport.RoundTrip(req)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return o.failed(err)
	}
	o.tls.Works()
	defer func() { _ = resp.Body.Close() }()
	err = o.answered(resp, b)
	_, _ = io.CopyN(io.Discard, resp.Body, drained) // the answer is known: what follows may fail
	return err
}

var errTimeout = timeoutError{}

// timeoutError is the cause of an attempt that took longer than the timeout.
type timeoutError struct{}

func (timeoutError) Error() string   { return "the receiver did not answer within the timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

// failed says what it means that there was no answer.
func (o *Output) failed(err error) error {
	if s, ok := errors.AsType[*proxyAnswer](err); ok {
		return o.classified(s.status, s.header, "the proxy answered "+statusText(s.status), "")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", errTimeout, err)
	}
	kind, hint := o.tls.Explain(err, o.addr())
	return &fault.Error{Kind: kind, Op: o.op, Err: o.secrets.clean(err), Hint: hint}
}

// addr is the receiver's host:port.
func (o *Output) addr() string {
	port := o.url.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[o.url.Scheme]
	}
	return net.JoinHostPort(o.url.Hostname(), port)
}
