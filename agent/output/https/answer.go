package https

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// answer is what a status means.
type answer struct {
	from, to int // statuses, both included
	ok       bool
	kind     fault.Kind
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

// answered says what the answer means.
func (o *Output) answered(resp *http.Response, b *record.Batch) error {
	a := classify(resp.StatusCode)
	if a.ok {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // half an answer is as good
	said := o.secrets.hide(text)
	if a.kind == fault.Refused || a.kind == fault.TooLarge {
		// Whoever refuses a record likes to quote it.
		said = hideRecords(said, b)
	}
	what := "the receiver answered " + statusText(resp.StatusCode)
	if said := quote(said, maxQuoted); said != "" {
		what += ": " + said
	}
	host := ""
	if resp.StatusCode/100 == 3 {
		if u, err := url.Parse(resp.Header.Get("Location")); err == nil && u.Host != "" {
			host = u.Scheme + "://" + u.Host // no more: the rest may hold a token
		}
	}
	return o.classified(resp.StatusCode, resp.Header, what, host)
}

// classified makes the error; redirect is where a redirect leads, "" for none.
func (o *Output) classified(status int, h http.Header, what, redirect string) error {
	a := classify(status)
	if a.ok {
		// 2xx other than 200 from a proxy that should connect us.
		a = answer{kind: fault.Held, hint: "check proxy"}
	}
	e := &fault.Error{
		Kind: a.kind, Op: o.op, Err: errors.New(what), Hint: a.hint,
		RetryAfter: retryAfter(h, time.Now()),
	}
	if status == http.StatusServiceUnavailable && e.RetryAfter > 0 {
		e.Kind = fault.Throttled
	}
	if redirect != "" {
		e.Hint += fmt.Sprintf(" (it names %.100q)", redirect)
	}
	return e
}

func statusText(status int) string {
	if s := http.StatusText(status); s != "" {
		return strconv.Itoa(status) + " " + s
	}
	return strconv.Itoa(status)
}
