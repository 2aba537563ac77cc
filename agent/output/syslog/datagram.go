package syslog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/record"
)

// datagrams sends one datagram a message.
type datagrams struct {
	op, addr string
	timeout  time.Duration

	mu     sync.Mutex
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
		return nil, &fault.Error{Op: d.op, Err: errClosed}
	}
	if err := ctx.Err(); err != nil {
		return nil, &fault.Error{Op: d.op, Err: err}
	}
	if d.conn == nil {
		dialer := net.Dialer{Timeout: d.timeout}
		conn, err := dialer.DialContext(ctx, "udp", d.addr)
		if err != nil {
			return nil, d.failed(err)
		}
		d.conn = conn
	}
	var out []fault.RecordRefusal
	worst := fault.Refused
	for i := range b.Records {
		if err := ctx.Err(); err != nil {
			return nil, &fault.Error{Op: d.op, Err: err}
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
				return nil, d.failed(err)
			}
		}
		out = append(out, fault.RecordRefusal{Index: i, Answer: why})
		if kind == fault.TooLarge {
			worst = kind
		}
	}
	return settled{leftOut(d.op, out, worst)}, nil
}

func (d *datagrams) failed(err error) error {
	kind, hint := (*tlsconf.Client)(nil).Explain(err, d.addr)
	return &fault.Error{Kind: kind, Op: d.op, Err: err, Hint: hint}
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
