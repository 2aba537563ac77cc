package https

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/redact"
	"github.com/trailpoll/trailpoll/agent/record"
)

// answer is what a status means.
type answer struct {
	from, to int // statuses, both included
	ok       bool
	kind     fault.Kind
	unsure   bool // with Refused: it may be something that passes by itself
	hint     string
}

// answers is the whole of what statuses mean; the first row that fits counts.
//
// What is not about the records holds the output, rather than being Refused:
// the agent parks refused records one by one, and a wrong URL must not park a
// whole bucket. Nothing is lost by waiting, since everything stays in S3.
var answers = []answer{
	{from: 200, to: 299, ok: true},
	{from: 300, to: 399, kind: fault.Held, hint: "redirects are never followed: set url to where the receiver is"},

	{from: 400, to: 400, kind: fault.Refused},
	{from: 422, to: 422, kind: fault.Refused},
	{from: 413, to: 413, kind: fault.TooLarge},

	{from: 408, to: 408, kind: fault.Temporary}, // Sumo Logic: taken, but too slowly
	{from: 425, to: 425, kind: fault.Temporary},
	{from: 429, to: 429, kind: fault.Throttled},

	{from: 401, to: 401, kind: fault.Held, hint: "the receiver wants other credentials: check token, or username and password"},
	{from: 403, to: 403, kind: fault.Held, hint: "the receiver forbids it: check what the token or user may do"},
	{from: 407, to: 407, kind: fault.Held, hint: "the proxy wants credentials: set proxy to http://user:password@host:port"},
	{from: 402, to: 402, kind: fault.Held, hint: "the receiver asks for payment: check the account's plan and quota"},
	{from: 404, to: 404, kind: fault.Held, hint: "nothing is there: check the path in url"},
	{from: 405, to: 405, kind: fault.Held, hint: "nothing there takes a POST: check the path in url"},
	{from: 410, to: 410, kind: fault.Held, hint: "nothing is there any more: check the path in url"},
	{from: 406, to: 406, kind: fault.Held, hint: "check format and the header Accept"},
	{from: 415, to: 415, kind: fault.Held, hint: "the receiver doesn't take this content type or encoding: check format, try compression = \"none\""},
	{from: 431, to: 431, kind: fault.Held, hint: "the receiver finds our headers too large: check headers and token"},
	{from: 400, to: 499, kind: fault.Held, hint: "check url and what the receiver says"},

	{from: 503, to: 503, kind: fault.Temporary}, // Throttled where it says Retry-After
	{from: 500, to: 599, kind: fault.Temporary},
	{from: 100, to: 199, kind: fault.Held, hint: "this is no receiver of logs: check url"},
}

// classify returns the row for a status. A status that HTTP doesn't know is
// Temporary.
func classify(status int) answer {
	for _, a := range answers {
		if a.from <= status && status <= a.to {
			return a
		}
	}
	return answer{kind: fault.Temporary}
}

// maxRetryAfter bounds what a receiver can ask for, so that a wrong clock or a
// bad answer doesn't silence the output.
const maxRetryAfter = 5 * time.Minute

// retryAfter reads the header Retry-After (RFC 9110 section 10.2.3), in seconds
// or as a date, clamped to [0, maxRetryAfter]. A date is compared with the
// receiver's own Date where it gives one, since our clocks may differ.
func retryAfter(h http.Header, now time.Time) time.Duration {
	s := h.Get("Retry-After")
	if s == "" {
		return 0
	}
	var d time.Duration
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		d = time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		d = maxRetryAfter
	} else if at, err := http.ParseTime(s); err == nil {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// maxAnswer bounds what is read of an answer, in bytes, beside what it says of
// each record.
const maxAnswer = 64 << 10

// unreadable is the error of an answer that broke off, so that nobody knows
// what it would have said.
func unreadable(err error) error { return fmt.Errorf("reading the receiver's answer: %w", err) }

// answered says what the answer to a request with n of the records means.
func (o *Output) answered(resp *http.Response, records []record.Record, n int) (outcome, error) {
	if classify(resp.StatusCode).ok {
		out := o.form.layout.taken(resp, n)
		if out.err == nil {
			return out, nil
		}
		e := *out.err
		e.Op = o.op
		if _, ok := errors.AsType[net.Error](e.Err); ok || errors.Is(e.Err, io.ErrUnexpectedEOF) {
			return out, o.failed(e.Err)
		}
		e.Err = errors.New(o.shown([]byte(e.Err.Error()), records, 2*maxQuoted))
		e.RetryAfter = retryAfter(resp.Header, time.Now())
		return out, &e
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // half an answer is as good
	return outcome{}, o.refused(resp, text, records)
}

// shown is a text of the receiver's that may go into an error: one line,
// without secrets and without what it quotes of the records.
func (o *Output) shown(text []byte, records []record.Record, limit int) string {
	text = o.secrets.hide(text)
	if len(records) > 0 {
		text = redact.Records([][]byte{text}, records, 2*maxQuoted)[0]
	}
	return quote(text, limit)
}

// refused is the error for a status other than 2xx; text is the answer's body,
// or how it begins.
func (o *Output) refused(resp *http.Response, text []byte, records []record.Record) error {
	a := classify(resp.StatusCode)
	if better, ok := o.form.layout.refusal(resp.StatusCode, text); ok {
		a = better
	}
	if a.kind == fault.Held {
		records = nil // whoever looks into a record may quote it, also in a 5xx; who lets nobody in doesn't see one
	}
	if auth := resp.Request.Header.Get("Authorization"); o.tokens != nil && auth != "" {
		text = bytes.ReplaceAll(text, []byte(strings.TrimPrefix(auth, "Bearer ")), []byte("[hidden]"))
	}
	what := "the receiver answered " + statusText(resp.StatusCode)
	if said := o.shown(text, records, maxQuoted); said != "" {
		what += ": " + said
	}
	e := o.classified(a, resp.StatusCode, resp.Header, what)
	if resp.StatusCode/100 == 3 {
		if u, err := url.Parse(resp.Header.Get("Location")); err == nil && u.Host != "" {
			// No more than the host: the rest may hold a token.
			e.Hint += fmt.Sprintf(" (it names %.100q)", u.Scheme+"://"+u.Host)
		}
	}
	if o.tokens != nil && resp.StatusCode == http.StatusUnauthorized {
		e.Hint = "the receiver refuses the token, also a fresh one: check oauth2.scopes and audience, and what the client may do"
	}
	return e
}

// classified makes the error.
func (o *Output) classified(a answer, status int, h http.Header, what string) *fault.Error {
	e := &fault.Error{
		Kind: a.kind, Unsure: a.unsure, Op: o.op, Err: errors.New(what), Hint: a.hint,
		RetryAfter: retryAfter(h, time.Now()),
	}
	if status == http.StatusServiceUnavailable && e.RetryAfter > 0 {
		e.Kind = fault.Throttled
	}
	return e
}

func statusText(status int) string {
	if s := http.StatusText(status); s != "" {
		return strconv.Itoa(status) + " " + s
	}
	return strconv.Itoa(status)
}
