// Package https sends batches to a receiver over HTTP, one POST a batch, in the
// formats that form.go lists. It makes one attempt a batch; retrying, splitting
// and parking are the agent's, who is told by the kind of the error (answer.go
// has the table).
//
// The receiver has acknowledged a batch when its status line is 2xx, and in
// formats whose answers say more (elastic.go, otlp.go, splunk.go) when those do.
// Redirects are never followed: they would carry token and records elsewhere.
package https

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
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
	form      *form
	timeout   time.Duration
	conns     int
	tls       *tlsconf.Client
	transport *http.Transport
	tokens    *tokens // nil without OAuth2
	acks      *acks   // nil without acknowledgements
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
	if o.tokens != nil {
		o.tokens.close()
	}
	return nil
}

// Send posts the batch once. It returns nil when the receiver answered 2xx and
// its answer says, where the format has it do so, that every record was taken;
// with Ack, when all is indexed. Otherwise the status alone counts, and not
// whether the rest of the answer arrived. Records that have no form to be sent
// in, such as those that hold a line break, are left out and named in the error
// (fault.Refused), beside those that the receiver refused. The batch's memory
// isn't used after Send returned.
func (o *Output) Send(ctx context.Context, b *record.Batch) error {
	if o.closed.Load() {
		return &fault.Error{Op: o.op, Err: errors.New("the output is closed")}
	}
	if err := ctx.Err(); err != nil {
		return &fault.Error{Op: o.op, Err: err}
	}
	body, left, err := o.bodies.encode(o.form, b)
	if err != nil {
		return &fault.Error{Op: o.op, Err: err}
	}
	var refused []fault.RecordRefusal
	if len(left) < len(b.Records) {
		if refused, err = o.post(ctx, body, b, left); err != nil {
			return err
		}
	} else {
		body.release()
	}
	if len(left)+len(refused) == 0 {
		return nil
	}
	what := errLeftOut
	if len(refused) > 0 {
		what = errRefusedSome
	}
	renumber(refused, left)
	for i := range refused {
		r := &refused[i]
		// What is said of a record can quote that one, and looking through all
		// others for each would take long.
		r.Answer = o.shown([]byte(r.Answer), b.Records[r.Index:r.Index+1], 2*maxQuoted)
	}
	all := slices.Concat(left, refused)
	slices.SortFunc(all, func(x, y fault.RecordRefusal) int { return x.Index - y.Index })
	return &fault.Error{Kind: fault.Refused, Op: o.op, Err: what, Records: all}
}

var (
	errLeftOut     = errors.New("records have no form that can be sent")
	errRefusedSome = errors.New("the receiver refused single records")
)

// renumber gives refusals by the receiver, which counts what was sent, the
// numbers of the batch, of which some were left out. Both ascend.
func renumber(refused, left []fault.RecordRefusal) {
	passed := 0
	for i := range refused {
		for passed < len(left) && left[passed].Index <= refused[i].Index+passed {
			passed++
		}
		refused[i].Index += passed
	}
}

// post makes the request and releases body. It returns the records that the
// receiver refused though it took all others, numbered as they were sent.
func (o *Output) post(ctx context.Context, body *body, b *record.Batch, left []fault.RecordRefusal) ([]fault.RecordRefusal, error) {
	defer body.release()
	attempt, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer cancel()
	// GetBody lets the transport send again by itself where it knows that the
	// receiver saw nothing of the request: an idle connection that turns out to
	// be closed before the first byte, or an HTTP/2 stream refused. A POST is
	// not repeated in any other case (net/http, persistConn.shouldRetryRequest).
	resp, err := o.roundTrip(ctx, (&http.Request{
		Method:        http.MethodPost,
		URL:           o.url,
		Host:          o.host,
		Header:        o.header.Clone(),
		Body:          body.reader(),
		GetBody:       func() (io.ReadCloser, error) { return body.reader(), nil },
		ContentLength: int64(body.buf.Len()),
	}).WithContext(attempt))
	if err != nil {
		return nil, err
	}
	out, err := o.answered(resp, b.Records, len(b.Records)-len(left))
	discard(resp) // the answer is known: what follows may fail
	if err != nil || out.ack == nil {
		return out.refused, err
	}
	cancel() // the wait for the acknowledgement has a time of its own
	return nil, o.await(ctx, *out.ack, resp.Cookies())
}

// roundTrip makes a request, with a token of its own where there is OAuth2. A
// token that the receiver refuses may have been revoked before its time: one is
// fetched anew, once.
//
// The transport is called without http.Client: nothing here wants cookies or
// redirects, and a Client puts the whole URL into its errors.
func (o *Output) roundTrip(ctx context.Context, req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		token := ""
		if o.tokens != nil {
			var err error
			if token, err = o.tokens.get(req.Context()); err != nil {
				_ = req.Body.Close() // of memory; the transport would have closed it
				return nil, err
			}
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := o.transport.RoundTrip(req)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, o.failed(err)
		}
		o.tls.Works()
		if o.tokens == nil || resp.StatusCode != http.StatusUnauthorized || try > 1 {
			return resp, nil
		}
		discard(resp)
		if err := o.tokens.drop(req.Context(), token); err != nil {
			return nil, err
		}
		again := req.Clone(req.Context())
		if again.Body, err = req.GetBody(); err != nil {
			return nil, &fault.Error{Op: o.op, Err: err}
		}
		req = again
	}
}

// discard reads what is left of an answer, so that its connection can be used
// again, and closes it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, drained)
	_ = resp.Body.Close()
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
		a := classify(s.status)
		if a.ok { // 2xx other than 200 from a proxy that should connect us
			a = answer{kind: fault.Held, hint: "check proxy"}
		}
		return o.classified(a, s.status, s.header, s.Error())
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", errTimeout, err)
	}
	kind, hint := o.tls.Explain(err, hostPort(o.url))
	return &fault.Error{Kind: kind, Op: o.op, Err: o.secrets.clean(err), Hint: hint}
}
