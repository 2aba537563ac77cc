package syslog

import (
	"context"
	"fmt"
	"net"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// Reach connects to each address, with TLS and, over RELP, with its opening,
// and goes away again. It uses connections of its own. answer says which
// addresses work; the error, a fault.Error, is there if one does not. Over UDP
// it only looks the name up: nothing would answer.
func (o *Output) Reach(ctx context.Context) (answer string, err error) {
	var failures []error
	works := 0
	try := func(r *route, open func(context.Context, *target) error) {
		for i := range r.targets {
			t := &r.targets[i]
			if err := within(ctx, r.timeout, func(ctx context.Context) error { return open(ctx, t) }); err != nil {
				failures = append(failures, t.failed(err))
				continue
			}
			works++
		}
	}
	answer = "it takes connections"
	switch to := o.to.(type) {
	case *datagrams:
		answer = "the name is known; whether anything listens can't be told over UDP"
		try(to.route, func(ctx context.Context, t *target) error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "udp", t.addr)
			if err != nil {
				return err
			}
			return conn.Close()
		})
	case *stream:
		try(to.route, func(ctx context.Context, t *target) error {
			w, err := t.dial(ctx, to.route.timeout)
			if err != nil {
				return err
			}
			return w.conn.Close()
		})
		if to.route.targets[0].tls != nil {
			answer = "it takes connections, and its certificate is trusted"
		}
	case *relp:
		answer = "it speaks RELP"
		try(to.route, func(ctx context.Context, t *target) error {
			s, err := to.open(ctx, t)
			if err != nil {
				return err
			}
			return s.close()
		})
	}
	if len(failures) == 0 {
		return answer, nil
	}
	err = together(failures)
	if works > 0 {
		e := &fault.Error{Kind: fault.KindOf(err), Err: fmt.Errorf("%d of %d addresses: %w", len(failures), len(failures)+works, err), Hint: fault.HintOf(err)}
		return "", e
	}
	return "", err
}
