package syslog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
)

const (
	// homeAfter is how long another address than the first is used before the
	// first is tried again.
	homeAfter = 10 * time.Minute
	// homePatience is how long that try may take, while nothing is sent.
	homePatience = 5 * time.Second
	// nextPatience is how long an address may take to answer when there is
	// another to go to.
	nextPatience = 10 * time.Second
)

// target is one address of a receiver.
type target struct {
	op, addr string
	tls      *tlsconf.Client // nil without TLS
}

// failed makes the error of a connection that could not be made or broke.
func (t *target) failed(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e
	}
	kind, hint := t.tls.Explain(err, t.addr)
	return &fault.Error{Kind: kind, Op: t.op, Err: err, Hint: hint}
}

// route chooses among a receiver's addresses. The first is used. When it can't
// be reached, or a connection to it breaks with something outstanding, the next
// is, and so on around; whichever works is kept. Some time after the first was
// left it is tried again. Not safe for concurrent use.
type route struct {
	targets []target
	timeout time.Duration
	home    time.Duration // as homeAfter

	at   int
	away time.Time // since when at is not the first, or it was last tried
}

// op names all addresses.
func (r *route) op() string {
	names := make([]string, len(r.targets))
	for i := range r.targets {
		names[i] = strings.TrimPrefix(r.targets[i].op, sendingTo)
	}
	return sendingTo + strings.Join(names, ", ")
}

const sendingTo = "sending to "

// leave goes on to the next address.
func (r *route) leave() {
	if len(r.targets) < 2 {
		return
	}
	if r.at == 0 {
		r.away = time.Now()
	}
	r.at = (r.at + 1) % len(r.targets)
}

// connect opens the address in use or else the next that can be opened. The
// error is that of all of them.
func (r *route) connect(ctx context.Context, open func(context.Context, *target) error) error {
	timeout := r.timeout
	if len(r.targets) > 1 {
		timeout = min(timeout, nextPatience)
	}
	var failures []error
	for range r.targets {
		t := &r.targets[r.at]
		err := within(ctx, timeout, func(ctx context.Context) error { return open(ctx, t) })
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return &fault.Error{Op: t.op, Err: context.Cause(ctx)}
		}
		failures = append(failures, t.failed(err))
		r.leave()
	}
	return together(failures)
}

// goHome opens the first address if another is in use and it is time to try.
func (r *route) goHome(ctx context.Context, open func(context.Context, *target) error) {
	if r.at == 0 || time.Since(r.away) < r.home {
		return
	}
	err := within(ctx, min(r.timeout, homePatience), func(ctx context.Context) error { return open(ctx, &r.targets[0]) })
	if err != nil {
		r.away = time.Now() // and on with the one that works
		return
	}
	r.at = 0
}

func within(ctx context.Context, d time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return do(ctx)
}

// together makes one error of those of several addresses: held where all are.
func together(failures []error) error {
	if len(failures) == 1 {
		return failures[0]
	}
	e := &fault.Error{Kind: fault.Held}
	var texts, hints []string
	for _, f := range failures {
		if fault.KindOf(f) != fault.Held {
			e.Kind = fault.Temporary
		}
		texts = append(texts, f.Error())
		if h := fault.HintOf(f); h != "" {
			hints = append(hints, h)
		}
	}
	// On one line, and each cause can still be asked for.
	e.Err = &several{text: strings.Join(texts, "; "), all: failures}
	e.Hint = strings.Join(hints, "; ")
	return e
}

// several is more than one error, in one line.
type several struct {
	text string
	all  []error
}

func (s *several) Error() string   { return s.text }
func (s *several) Unwrap() []error { return s.all }

// targetsOf makes the targets of a configuration.
func (c *Config) targetsOf() ([]target, error) {
	if len(c.Addresses) == 0 {
		return nil, errors.New("no address is given")
	}
	all := make([]target, len(c.Addresses))
	for i, addr := range c.Addresses {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("reading the address %q: it is not host:port", addr)
		}
		all[i] = target{op: sendingTo + string(c.Transport) + "://" + addr, addr: addr}
		if c.Transport != TLS && c.Transport != RELPTLS {
			continue
		}
		// Each has its own, since each knows how its receiver fared with it.
		if all[i].tls, err = c.TLS.Load(); err != nil {
			return nil, err
		}
		if all[i].tls.Conf.ServerName == "" {
			all[i].tls.Conf.ServerName = host
		}
	}
	return all, nil
}
