package syslog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// datagrams sends one datagram a message.
type datagrams struct {
	mu     sync.Mutex
	route  *route
	format *formatter
	conn   net.Conn // nil until needed
	closed bool
}

// write sends the batch. What it returns is confirmed at once: nothing will
// ever tell more, so a batch settles on write.
func (d *datagrams) write(ctx context.Context, b *record.Batch) (record.Confirmation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, &fault.Error{Op: d.route.op(), Err: errClosed}
	}
	if err := ctx.Err(); err != nil {
		return nil, &fault.Error{Op: d.route.op(), Err: err}
	}
	if err := d.connect(ctx); err != nil {
		return nil, err
	}
	t := &d.route.targets[d.route.at]
	var out leftOut
	for i := range b.Records {
		if err := ctx.Err(); err != nil {
			return nil, &fault.Error{Op: t.op, Err: err}
		}
		msg, why, kind := d.format.frame(&b.Records[i])
		if why == "" {
			_, err := d.conn.Write(msg)
			switch {
			case err == nil:
				continue
			case errors.Is(err, syscall.EMSGSIZE):
				// The path's or the system's limit is lower than the protocol's.
				why = fmt.Sprintf("longer than a datagram can be here: %d bytes", len(msg))
				kind = fault.TooLarge
			default:
				// Among them ECONNREFUSED, by which the system reports that an
				// earlier datagram met a closed port. The name may lead
				// elsewhere next time.
				_ = d.conn.Close() // the write's error says more
				d.conn = nil
				d.route.leave()
				return nil, t.failed(err)
			}
		}
		out.add(i, why, kind)
	}
	return settled{out.err(t.op)}, nil
}

// connect sees to it that there is a socket, which says nothing of a receiver.
func (d *datagrams) connect(ctx context.Context) error {
	open := func(ctx context.Context, t *target) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "udp", t.addr)
		if err != nil {
			return err
		}
		if d.conn != nil {
			_ = d.conn.Close() // nothing is kept there
		}
		d.conn = conn
		return nil
	}
	if d.conn == nil {
		return d.route.connect(ctx, open)
	}
	d.route.goHome(ctx, open)
	return nil
}

func (d *datagrams) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.conn == nil {
		return nil
	}
	err := d.conn.Close()
	d.conn = nil
	return err
}

// settled is a confirmation that is there already.
type settled struct{ err error }

// Wait returns at once.
func (s settled) Wait(context.Context) error { return s.err }
